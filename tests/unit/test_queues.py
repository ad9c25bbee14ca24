"""Who waits and who executes, as a scrape shows it: laws that hold at every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus import queues
from vllm_omni_metrics_plugin.exporters.prometheus.occupancy import Occupancy
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import HookRegistry, ReplicaLeft
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests
from vllm_omni_metrics_plugin.testing import make_event

STAGES = range(3)
REPLICAS = range(3)
MODEL = {"model_name": "tiny"}
HERE = {**MODEL, "stage": "0", "replica": "0"}


class Pipeline:
    """Three stages of three replicas, and what is true of them.

    Stage 0 is a diffusion stage, whose scheduler tells its ends; stage 2 gives outputs.
    """

    def __init__(self, hooks: Any, shown: Any, clock: Any) -> None:
        self.requests = OpenRequests(hooks)
        self.shown = shown
        self.clock = clock
        self.began = clock.now
        self.accepted = self.ended = 0
        self.open: dict[str, OpenRequest] = {}
        #: Of open requests: by id and stage, the replica and w, x (executes) or o (over).
        self.parts: dict[tuple[str, int], tuple[int, str]] = {}
        #: What the diffusion engine goes on with.
        self.going_on: dict[tuple[str, int], int] = {}
        #: By replica, the seconds in which it executed something.
        self.busy: dict[tuple[int, int], float] = {}

    def choices(self) -> Iterator[tuple[Any, ...]]:
        if self.accepted < 8:
            yield ("arrive",)
        for name in self.open:
            for stage in STAGES:
                part = self.parts.get((name, stage))
                if part is None:
                    for replica in REPLICAS:
                        yield ("submit", name, stage, replica)
                elif part[1] == "w":
                    yield from (("start", name, stage), ("finish", name, stage))
                    if stage == 2:
                        yield ("packet", name, stage)
                elif part[1] == "x":
                    yield ("finish", name, stage)
                    if stage == 0:
                        yield ("end", name, stage)
            yield from (("abort", name), ("complete", name))
        for name, stage in self.going_on:
            yield ("end", name, stage)
        yield ("start", "nobody", 0)

    def do(self, what: str, name: str = "", stage: int = 0, replica: int = 0) -> None:
        getattr(self, f"_{what}")(name, stage, replica)

    def _arrive(self, name: str, *_: int) -> None:
        name = f"r{self.accepted}"
        self.accepted += 1
        self.open[name] = self.requests.begin(name, name, "tiny", self.clock.now)

    def _submit(self, name: str, stage: int, replica: int) -> None:
        self.open[name].submitting(stage, "delta")
        self.requests.submitted(name, stage, replica, None)
        self.parts[name, stage] = (replica, "w")

    def _start(self, name: str, stage: int, _: int) -> None:
        self.requests.started(name, stage, None, self.clock.now, tells_end=stage == 0)
        self._move(name, stage, "x")

    def _packet(self, name: str, stage: int, _: int) -> None:
        payload = [{"audio": [0.0] * 10, "sr": 24000}]
        self.open[name].audio_output(payload, stage, self.parts[name, stage][0], finished=False)
        self._move(name, stage, "x")

    def _finish(self, name: str, stage: int, _: int) -> None:
        self.requests.stage_finished(name, stage, self.parts[name, stage][0], "stop", 1, 1)
        self._move(name, stage, "o")

    def _end(self, name: str, stage: int, _: int) -> None:
        self.requests.ended(name, stage, self.clock.now)
        self._move(name, stage, "o")
        self.going_on.pop((name, stage), None)

    def _abort(self, name: str, *_: int) -> None:
        self._over(name, GeneratorExit())

    def _complete(self, name: str, *_: int) -> None:
        self._over(name, None)

    def _over(self, name: str, error: BaseException | None) -> None:
        self.open.pop(name).end(error)
        self.ended += 1
        for key in [key for key in self.parts if key[0] == name]:
            replica, phase = self.parts.pop(key)
            if key[1] == 0 and phase == "x":
                self.going_on[key] = replica

    def _move(self, name: str, stage: int, phase: str) -> None:
        if (name, stage) in self.parts:
            self.parts[name, stage] = (self.parts[name, stage][0], phase)

    def count(self, phase: str, stage: int, replica: int) -> int:
        """How many are in this phase at a replica."""
        here = sum(at == stage and part == (replica, phase) for (_, at), part in self.parts.items())
        there = [key[1] == stage and on == replica for key, on in self.going_on.items()]
        return here + (sum(there) if phase == "x" else 0)

    def pass_time(self, seconds: float) -> None:
        for stage in STAGES:
            for replica in REPLICAS:
                if self.count("x", stage, replica):
                    before = self.busy.get((stage, replica), 0.0)
                    self.busy[stage, replica] = before + seconds
        self.clock.advance(seconds)

    def check(self) -> None:
        value = self.shown.value
        running = len({name for (name, _), (_, phase) in self.parts.items() if phase == "x"})
        counts = (
            value("num_requests_running", **MODEL),
            value("num_requests_waiting", **MODEL),
        )
        assert counts == (running, self.accepted - self.ended - running)
        for stage in STAGES:
            for replica in REPLICAS:
                labels = {**MODEL, "stage": str(stage), "replica": str(replica)}
                loads = (
                    value("stage_requests_running", **labels),
                    value("stage_requests_waiting", **labels),
                )
                assert loads == (
                    self.count("x", stage, replica),
                    self.count("w", stage, replica),
                ), labels
                busy = value("stage_busy_seconds_total", **labels)
                assert busy == pytest.approx(self.busy.get((stage, replica), 0.0))
                assert busy <= self.clock.now - self.began


class Shown:
    """The families of queues alone: a scrape of all would take a hundred times as long."""

    def __init__(self, registry: HookRegistry) -> None:
        self._families = Families({})
        self.queues = queues.QueueSamples(self._families)
        registry.register(self.queues, "queues")

    def value(self, stem: str, **labels: str) -> float:
        self.queues.publish()
        value: float = self._families[stem].labels(**labels)._value.get()
        return value


@settings(max_examples=150)
@given(data=st.data())
def test_counts_are_exact_at_every_step_of_any_schedule(clock: Any, data: st.DataObject) -> None:
    registry = HookRegistry()
    shown = Shown(registry)
    pipeline = Pipeline(registry.hooks, shown, clock)
    for _ in range(data.draw(st.integers(1, 40))):
        pipeline.do(*data.draw(st.sampled_from(list(pipeline.choices()))))
        pipeline.check()
        pipeline.pass_time(data.draw(st.sampled_from([0.0, 0.125, 2.0])))
    pipeline.check()
    for name in list(pipeline.open):
        pipeline.do("abort", name)
    for name, stage in list(pipeline.going_on):
        pipeline.do("end", name, stage)
    pipeline.check()
    occupancy = shown.queues._occupancy
    assert not occupancy._requests
    assert not occupancy._going_on


def test_running_and_waiting_are_of_one_moment_in_every_scrape(feed: Feed, exposed: Any) -> None:
    """Whatever happens while it is being written, other scrapes included."""
    exposed.join(stage=0)
    for number in range(10):
        feed.arrive(f"r{number}")
    [collector] = set(exposed.registry._names_to_collectors.values())
    families = iter(collector.collect())
    shown = {}
    for family in families:
        shown[family.name.removeprefix(catalog.PREFIX)] = family.samples[0].value
        if len(shown) == 1:
            feed.start("r0")
            feed.finish("r1")
            assert exposed.value("num_requests_running", **MODEL) == 1
            assert exposed.value("num_requests_waiting", **MODEL) == 8
        if len(shown) == 2:
            break
    assert shown == {"num_requests_running": 0, "num_requests_waiting": 10}


def test_oldest_waiting_is_counted_from_the_moment_of_the_scrape(
    feed: Feed, exposed: Any, clock: Any
) -> None:
    def oldest() -> Any:
        return exposed.value("oldest_waiting_seconds", **MODEL)

    exposed.join(stage=0)
    assert oldest() == 0
    requests = OpenRequests(exposed.hooks)
    for name, at in (("b", clock.now), ("a", clock.now - 1.0)):
        requests.begin(name, name, "tiny", at).submitting(0, None)
        requests.submitted(name, 0, 0, None)
    clock.advance(2.0)
    assert oldest() == 3.0
    requests.started("a", 0, 0, clock.now)
    assert oldest() == 2.0
    requests.started("b", 0, 0, clock.now)
    assert oldest() == 0
    clock.advance(4.0)
    requests.stage_finished("b", 0, 0, None, None, None)
    clock.advance(0.5)
    assert oldest() == 0.5, "it waits again, for the next stage or the end of its response"


def test_busy_time_is_a_union_of_what_overlaps(feed: Feed, exposed: Any, clock: Any) -> None:
    exposed.join(stage=0)
    for name in "abc":
        feed.arrive(name)
    at = clock.now
    feed.start("a", started_at=at)
    clock.advance(2.0)
    feed.start("b", started_at=at + 1.0)
    feed.end("a", ended_at=at + 2.0)
    clock.advance(1.0)
    feed.end("b", ended_at=at + 3.0)
    feed.start("c", started_at=at + 2.5)  # its report came before the end of the one before
    clock.advance(1.0)
    assert exposed.value("stage_busy_seconds_total", **HERE) == 4.0


def test_busy_time_never_falls_when_an_end_is_told_late(
    feed: Feed, exposed: Any, clock: Any
) -> None:
    exposed.join(stage=0)
    feed.arrive()
    feed.start(started_at=clock.now)
    clock.advance(2.0)
    assert exposed.value("stage_busy_seconds_total", **HERE) == 2.0
    feed.end(ended_at=clock.now - 0.5)
    assert exposed.value("stage_busy_seconds_total", **HERE) == 2.0
    feed.arrive("b")
    feed.start("b", started_at=clock.now)
    clock.advance(1.0)
    assert exposed.value("stage_busy_seconds_total", **HERE) == 2.5, "half a second was too early"


def test_event_that_overtakes_another_leaves_nothing_behind(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0)
    feed.arrive()
    feed.end()
    feed.start()
    feed.submit()
    assert exposed.value("stage_requests_running", **HERE) == 0
    assert exposed.value("stage_requests_waiting", **HERE) == 0
    feed.finish()
    feed.start()
    assert exposed.value("stage_requests_running", **HERE) == 0


def test_replica_that_left_executes_nothing(feed: Feed, exposed: Any, clock: Any) -> None:
    exposed.join(stage=0)
    for name in "abc":
        feed.arrive(name)
        feed.submit(name)
    feed.start("a", started_at=clock.now)
    feed.start("b", started_at=clock.now)
    feed.finish("b")
    clock.advance(1.0)
    exposed.hooks.omni_replica_left(make_event(ReplicaLeft, model_name="tiny", stage=0, replica=0))
    clock.advance(1.0)
    assert exposed.value("stage_requests_running", **HERE) == 0
    assert exposed.value("stage_requests_waiting", **HERE) == 0
    assert exposed.value("stage_busy_seconds_total", **HERE) == 1.0
    assert exposed.value("num_requests_waiting", **MODEL) == 2
    for name in "ac":
        feed.end(name)
        feed.finish(name)
    feed.end("b")
    assert exposed.value("stage_requests_running", **HERE) == 0
    assert exposed.value("num_requests_waiting", **MODEL) == 0


@pytest.mark.parametrize(
    ("times", "queue", "input_wait", "missing"),
    [
        ({"input_at": 100.5, "started_at": 101.5}, 1.0, 0.5, {}),
        ({"input_at": 99.0, "started_at": 101.5}, 1.5, 0.0, {}),
        ({"input_at": 102.0, "started_at": 101.5}, 0.0, 1.5, {}),
        ({"input_at": None, "started_at": 101.5}, 0.0, 0.0, {"unknown_input": 1}),
        ({"input_at": 100.5, "started_at": None}, 0.0, 0.0, {"unknown_start": 1}),
    ],
)
def test_stage_that_others_feed_queues_from_its_first_chunk(
    feed: Feed,
    exposed: Any,
    times: dict[str, Any],
    queue: float,
    input_wait: float,
    missing: dict[str, float],
) -> None:
    exposed.join(stage=0, feeds=(1,))
    exposed.join(stage=1)
    feed.start(stage=1, submitted_at=100.0, **times)
    labels = {**MODEL, "stage": "1", "replica": "0"}
    assert exposed.value("stage_queue_time_seconds_sum", **labels) == queue
    assert exposed.value("stage_input_wait_seconds_sum", **labels) == input_wait
    assert exposed.missing() == {
        (stem, reason): count
        for stem in ("stage_queue_time_seconds", "stage_input_wait_seconds")
        for reason, count in missing.items()
    }


def test_stage_that_nobody_feeds_queues_from_its_submit(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0, feeds=(1,))
    feed.start(submitted_at=100.0, started_at=101.5)
    feed.start("b", started_at=None)
    feed.start("a__cfg", parent_request_id="a")
    assert exposed.value("stage_queue_time_seconds_sum", **HERE) == 1.5
    assert exposed.value("stage_queue_time_seconds_count", **HERE) == 1
    assert exposed.missing() == {("stage_queue_time_seconds", "unknown_start"): 1}


def test_execution_is_timed_from_start_to_end(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=0)
    feed.end(started_at=100.0, ended_at=102.0)
    feed.end(started_at=None)
    feed.end(ended_at=None)
    assert exposed.value("stage_execute_time_seconds_sum", **HERE) == 2.0
    assert exposed.value("stage_execute_time_seconds_count", **HERE) == 1
    assert exposed.missing() == {
        ("stage_execute_time_seconds", reason): 1 for reason in ("unknown_start", "unknown_end")
    }


def test_exporter_that_others_share_files_with_shows_what_is_at_once(
    feed: Feed, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = Families({})
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    registry.register(queues.QueueSamples(families), "queues")
    feed.arrive()
    feed.arrive("b")
    feed.start("b")
    shown: CollectorRegistry = families.registry
    for name in ("running", "waiting"):
        assert shown.get_sample_value(f"vllm:omni_num_requests_{name}", MODEL) == 1, name


def test_request_of_which_no_end_may_be_told_ends_in_its_stages_with_its_own_end() -> None:
    occupancy = Occupancy()
    replica = ("tiny", 0, 0)
    for ends_at, running in ((None, 1), (3.0, 1)):
        occupancy.arrived("a", "tiny", 1.0)
        occupancy.submitted("a", replica)
        occupancy.started("a", replica, 2.0)
        occupancy.closed("a", ends_at)
        _, replicas = occupancy.read(4.0)
        assert replicas[replica].running == running, "the first one goes on"
