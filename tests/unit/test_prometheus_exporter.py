"""Events in, samples out: what a scrape shows after which events."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog, internal_errors
from vllm_omni_metrics_plugin.catalog.buckets import SECONDS
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.exporters.prometheus.requests import RequestSamples
from vllm_omni_metrics_plugin.hooks import (
    EventsDropped,
    HookRegistry,
    MediaPacket,
    ReplicaJoined,
    RequestArrived,
    SessionOpened,
    TurnPlayed,
    hookimpl,
)
from vllm_omni_metrics_plugin.objectives import Objective
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.testing import make_event

MODEL = {"model_name": "tiny"}
STAGE = {**MODEL, "stage": "1", "replica": "3"}


def scrape(registry: CollectorRegistry) -> dict[str, list[Any]]:
    """Samples by family name, without the times at which they were created."""
    return {
        family.name: [s for s in family.samples if not s.name.endswith("_created")]
        for family in registry.collect()
    }


def without_events(scraped: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """All but the counts of the events themselves, which any event changes."""
    return {name: samples for name, samples in scraped.items() if "metrics_events" not in name}


# What is published, and when


def test_nothing_is_published_before_the_first_replica_joins(feed: Feed, exposed: Any) -> None:
    feed.report("applied")
    feed.arrive()
    feed.submit()
    feed.packet()
    feed.finish()
    assert scrape(exposed.registry) == {}
    exposed.join()
    assert exposed.value("requests_success_total", **MODEL, finished_reason="stop") == 1
    assert exposed.value("audio_frames_total", **STAGE) == 480


def test_gauges_read_0_as_soon_as_a_model_is_there(exposed: Any) -> None:
    exposed.join()
    assert exposed.value("num_requests_running", **MODEL) == 0
    assert exposed.value("num_requests_waiting", **MODEL) == 0


def test_each_replica_that_joins_is_named_once(exposed: Any) -> None:
    for replica in (0, 1, 1):
        exposed.join(stage=2, replica=replica, stage_name="code2wav")
    samples = scrape(exposed.registry)["vllm:omni_stage_info"]
    labels = {**MODEL, "stage": "2", "stage_name": "code2wav", "stage_type": "llm"}
    assert [sample.labels for sample in samples] == [
        {**labels, "replica": "0"},
        {**labels, "replica": "1"},
    ]
    assert {sample.value for sample in samples} == {1}


PROMPT = Objective("prompt", 0.95, {"audio_ttfp_seconds": 0.5})


@pytest.fixture
def judging(expose: Any) -> Iterator[Any]:
    """An exporter with an objective."""
    with expose(objectives=(PROMPT,)) as exposed:
        yield exposed


def feed_every_family(feed: Feed, registry: HookRegistry, exposed: Any) -> None:
    class Broken:
        @hookimpl
        def omni_request_arrived(self, event: RequestArrived) -> None:
            raise RuntimeError

    broken = Broken()
    registry.register(broken, "broken")
    feed.report("applied")
    exposed.join(stage=0, feeds=(1,))
    exposed.join(replica=3)
    feed.arrive()
    registry.unregister(broken)
    feed.submit()
    feed.packet()
    feed.finish_audio()
    feed.finish_audio(replica=None)
    feed.finish_stream()
    feed.start()
    feed.start(stage=1, replica=3, input_at=100.125)
    feed.end()
    feed.finish_stage(stage=0, replica=0)
    feed.finish_stage()
    feed.finish_stage(stage=0, diffusion=None)
    feed.finish_image()
    feed.finish_video()
    feed.finish()
    feed.judge(objective=PROMPT.name)
    feed.send()
    feed.receive()
    feed.wait_for_connector()
    feed.fail()
    exposed.hooks.omni_session_opened(make_event(SessionOpened))
    exposed.hooks.omni_turn_played(make_event(TurnPlayed, replica=0))
    exposed.hooks.omni_events_dropped(EventsDropped(reason="lost", count=1))
    exposed.held["late_starts", "late_starts_total", "request_id"] = 1
    exposed.spans_dropped["queue_full"] = 1
    with internal_errors.suppressed("a place of this test"):
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_every_family_of_the_catalogue_is_exposed_as_it_says(
    feed: Feed, registry: HookRegistry, judging: Any, family: catalog.Family
) -> None:
    feed_every_family(feed, registry, judging)
    # The client library names a counter's family without the suffix of its samples.
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    [metric] = [metric for metric in judging.registry.collect() if metric.name == name]
    assert metric.type == family.kind
    assert metric.documentation == family.help
    samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
    assert samples, f"feed_every_family() has no event that feeds {family.stem}"
    for sample in samples:
        assert set(sample.labels) - {"le"} == set(family.labels), sample
        assert "" not in {sample.labels[label] for label in {*family.labels} - {"reason"}}, sample
    if family.kind == "histogram":
        bounds: dict[tuple[str, ...], list[float]] = {}
        for sample in samples:
            if sample.name.endswith("_bucket"):
                child = tuple(sample.labels[label] for label in family.labels)
                bounds.setdefault(child, []).append(float(sample.labels["le"]))
        assert {tuple(of) for of in bounds.values()} == {(*family.buckets, float("inf"))}


def test_nothing_but_the_catalogue_is_exposed(
    feed: Feed, registry: HookRegistry, judging: Any
) -> None:
    feed_every_family(feed, registry, judging)
    names = {sample.name for samples in scrape(judging.registry).values() for sample in samples}
    families = {name.removesuffix("_bucket") for name in names if name.endswith("_bucket")}
    families |= {name for name in names if not name.endswith(("_bucket", "_count", "_sum"))}
    assert families == {family.name for family in catalog.FAMILIES}


def test_spans_that_are_lost_are_counted_once_and_each_reason_stands_at_0(exposed: Any) -> None:
    exposed.join()
    reasons = catalog.BY_STEM["metrics_spans_dropped_total"].known["reason"]

    def shown() -> list[float | None]:
        generate_latest(exposed.registry)
        return [exposed.value("metrics_spans_dropped_total", reason=r) for r in reasons]

    assert shown() == [0, 0, 0]
    exposed.spans_dropped["export_failed"] = 5
    assert shown() == shown() == [0, 5, 0]
    exposed.spans_dropped["export_failed"] = 6
    assert shown() == [0, 6, 0]


def test_server_that_traces_nothing_says_nothing_of_spans() -> None:
    registry = HookRegistry()
    shown = CollectorRegistry()
    exporter = PrometheusExporter({}, registry.stats, shown)
    registry.register(exporter, "prometheus")
    registry.hooks.omni_replica_joined(make_event(ReplicaJoined))
    text = generate_latest(shown).decode()
    exporter.close()
    assert "vllm:omni_stage_info{" in text
    assert "vllm:omni_metrics_spans_dropped_total{" not in text


def test_buckets_that_the_operator_chose_replace_the_catalogues(
    feed: Feed, registry: HookRegistry, expose: Any
) -> None:
    def bounds(exposed: Any, family: str) -> list[str]:
        samples = scrape(exposed.registry)[catalog.PREFIX + family]
        return [sample.labels["le"] for sample in samples if sample.name.endswith("_bucket")]

    with expose(buckets={"audio_rtf": (0.5, 2.0)}, objectives=(PROMPT,)) as exposed:
        feed_every_family(feed, registry, exposed)
        assert bounds(exposed, "audio_rtf") == ["0.5", "2.0", "+Inf"]
        assert len(bounds(exposed, "audio_duration_seconds")) == len(SECONDS) + 1


# Transfers

EDGE = {
    "model_name": "tiny",
    "from_stage": "0",
    "from_replica": "1",
    "to_stage": "1",
    "to_replica": "3",
}


def test_hop_is_counted_and_timed_at_its_edge(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.send()
    feed.receive()
    for family, total in (
        ("transfer_size_bytes", 300),
        ("transfer_tx_time_ms", 2.0),
        ("transfer_rx_decode_time_ms", 3.0),
        ("transfer_in_flight_time_ms", 250.0),
    ):
        assert exposed.value(f"{family}_count", **EDGE) == 1, family
        assert exposed.value(f"{family}_sum", **EDGE) == pytest.approx(total), family
    assert exposed.missing() == {}


@pytest.mark.parametrize(
    ("half", "families", "reason"),
    [
        (
            lambda feed: feed.send(to_replica=None),
            ("transfer_size_bytes", "transfer_tx_time_ms"),
            "never_received",
        ),
        (
            lambda feed: feed.send(from_replica=None),
            ("transfer_size_bytes", "transfer_tx_time_ms"),
            "unknown_edge",
        ),
        (
            lambda feed: feed.send(model_name=None),
            ("transfer_size_bytes", "transfer_tx_time_ms"),
            "unknown_edge",
        ),
        (
            lambda feed: feed.receive(from_replica=None),
            ("transfer_rx_decode_time_ms", "transfer_in_flight_time_ms"),
            "unknown_sender",
        ),
        (
            lambda feed: feed.receive(to_replica=None),
            ("transfer_rx_decode_time_ms", "transfer_in_flight_time_ms"),
            "unknown_edge",
        ),
    ],
)
def test_hop_whose_edge_is_not_known_is_missing_and_not_guessed(
    feed: Feed, exposed: Any, half: Any, families: tuple[str, ...], reason: str
) -> None:
    exposed.join()
    half(feed)
    assert exposed.missing() == {(family, reason): 1 for family in families}
    for family in families:
        assert exposed.value(f"{family}_count", **EDGE) is None


def test_time_in_flight_between_hosts_is_missing(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.receive(in_flight_seconds=None)
    assert exposed.missing() == {("transfer_in_flight_time_ms", "other_host"): 1}
    assert exposed.value("transfer_rx_decode_time_ms_count", **EDGE) == 1


@pytest.mark.parametrize("replica", [3, None])
def test_failures_are_counted_by_side_and_reason(
    feed: Feed, exposed: Any, replica: int | None
) -> None:
    exposed.join()
    feed.fail(replica=replica)
    feed.fail(replica=replica)
    labels = {"from_stage": "0", "to_stage": "1", "operation": "receive", "reason": "OSError"}
    side = "" if replica is None else "3"
    failures = exposed.value("transfer_failures_total", **MODEL, **labels, replica=side)
    assert failures == 2


def test_dropped_events_add_up_by_reason(exposed: Any) -> None:
    exposed.join()
    for count in (5, 7):
        exposed.hooks.omni_events_dropped(EventsDropped(reason="queue_full", count=count))
    assert exposed.value("metrics_dropped_events_total", reason="queue_full") == 12


# Requests


@pytest.mark.parametrize("outcome", ["stop", "length", "repetition"])
def test_request_that_ended_naturally_is_counted_and_timed(
    feed: Feed, exposed: Any, outcome: str
) -> None:
    exposed.join()
    feed.arrive()
    feed.submit()
    feed.finish(outcome=outcome, seconds=2.0, queue_seconds=0.5)
    assert exposed.value("requests_success_total", **MODEL, finished_reason=outcome) == 1
    assert exposed.value("e2e_request_latency_seconds_count", **MODEL) == 1
    assert exposed.value("e2e_request_latency_seconds_sum", **MODEL) == 2.0
    assert exposed.value("request_queue_time_seconds_count", **MODEL) == 1
    assert exposed.value("request_queue_time_seconds_sum", **MODEL) == 0.5


@pytest.mark.parametrize("outcome", ["abort", "error"])
def test_request_that_was_cut_short_is_counted_but_not_timed(
    feed: Feed, exposed: Any, outcome: str
) -> None:
    exposed.join()
    feed.arrive()
    feed.submit()
    feed.finish(outcome=outcome)
    assert exposed.value("requests_success_total", **MODEL, finished_reason=outcome) == 1
    assert not exposed.value("e2e_request_latency_seconds_count", **MODEL)
    assert exposed.value("request_queue_time_seconds_count", **MODEL) == 1, "it did queue"


@pytest.mark.parametrize("outcome", ["abort", "error", "rejected"])
def test_request_that_was_cut_short_is_a_failure_for_one_reason(
    feed: Feed, exposed: Any, outcome: str
) -> None:
    exposed.join()
    reasons = catalog.BY_STEM["requests_failed_total"].known["reason"]
    said = (*reasons, "a word of tomorrow", None)
    for failure in said:
        feed.arrive()
        feed.finish(outcome=outcome, failure=failure)
    counted = {
        reason: exposed.value("requests_failed_total", **MODEL, reason=reason) for reason in reasons
    }
    assert counted == {**dict.fromkeys(reasons, 1), "other": 3}
    ended = exposed.value("requests_success_total", **MODEL, finished_reason=outcome)
    assert ended == sum(counted.values()) == len(said)


def test_request_that_ended_naturally_is_no_failure(feed: Feed, exposed: Any) -> None:
    exposed.join()
    for outcome in ("stop", "length", "repetition"):
        feed.arrive()
        feed.finish(outcome=outcome)
    for reason in catalog.BY_STEM["requests_failed_total"].known["reason"]:
        assert exposed.value("requests_failed_total", **MODEL, reason=reason) == 0


@pytest.mark.parametrize("dispatched", [False, True])
def test_rejected_request_is_counted_as_that_and_by_its_reason_alone(
    feed: Feed, exposed: Any, dispatched: bool
) -> None:
    exposed.join()
    before = without_events(scrape(exposed.registry))
    feed.arrive()
    if dispatched:
        feed.submit(stage=1)
    feed.finish(outcome="rejected", failure="invalid_request")
    assert exposed.value("requests_success_total", **MODEL, finished_reason="rejected") == 1
    after = without_events(scrape(exposed.registry))
    assert {name for name in after if after[name] != before[name]} == {
        f"{catalog.PREFIX}requests_success",
        f"{catalog.PREFIX}requests_failed",
    }


def test_durations_from_an_arrival_that_is_not_known_are_missing(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.arrive()
    feed.submit()
    feed.start()
    feed.packet(index=0, since_arrival_seconds=None)
    feed.finish_image(first_image_seconds=None)
    feed.finish(seconds=None, queue_seconds=None)
    assert exposed.missing() == {
        (family, "unknown_arrival"): 1
        for family in (
            "audio_ttfp_seconds",
            "image_ttfp_seconds",
            "e2e_request_latency_seconds",
            "request_queue_time_seconds",
        )
    }
    for family in ("audio_ttfp_seconds", "image_ttfp_seconds"):
        assert not exposed.value(f"{family}_count", **STAGE)
    for family in ("e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert exposed.value(f"{family}_count", **MODEL) == 0


def test_request_that_never_reached_a_stage_has_no_queue_time(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.arrive()
    feed.finish(outcome="error", queue_seconds=None)
    assert not exposed.value("request_queue_time_seconds_count", **MODEL)


def test_request_runs_while_a_stage_executes_it_and_waits_else(feed: Feed, exposed: Any) -> None:
    def gauges() -> tuple[float, float]:
        return (
            exposed.value("num_requests_waiting", **MODEL),
            exposed.value("num_requests_running", **MODEL),
        )

    exposed.join()
    seen = [gauges()]
    steps: tuple[Callable[[], None], ...] = (
        feed.arrive,
        lambda: feed.submit(stage=0),
        lambda: feed.submit(stage=1),
        lambda: feed.start(stage=0),
        lambda: feed.start(stage=1),
        lambda: feed.end(stage=0),
        lambda: feed.end(stage=1),
        feed.finish,
    )
    for step in steps:
        step()
        seen.append(gauges())
    assert seen == [(0, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1), (0, 1), (1, 0), (0, 0)]


class Lives:
    """Requests that a real table of open requests knows."""

    def __init__(self, hooks: Any) -> None:
        self.requests = OpenRequests(hooks)
        self.begun: dict[str, OpenRequest] = {}

    def arrive(self, name: str) -> None:
        self.begun[name] = self.requests.begin(name, name, "tiny", 0.0)

    def submit(self, name: str) -> None:
        self.begun[name].submitting(0, None)
        self.requests.submitted(name, 0, 0, None)
        self.requests.started(name, 0, 0, 0.0)

    def finish(self, name: str, error: BaseException | None = None) -> None:
        self.begun[name].delivered = True
        self.begun[name].end(error)


def test_what_comes_after_the_end_moves_no_gauge(hooks: Any, exposed: Any) -> None:
    exposed.join()
    lives = Lives(hooks)
    lives.arrive("a")
    lives.finish("a", GeneratorExit())
    lives.submit("a")
    lives.finish("a", GeneratorExit())
    assert exposed.value("num_requests_waiting", **MODEL) == 0
    assert exposed.value("num_requests_running", **MODEL) == 0
    assert exposed.value("requests_success_total", **MODEL, finished_reason="abort") == 1


@given(
    plan=st.dictionaries(
        st.sampled_from("abcd"),
        # how many stages get the request before and after its client has left
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([None, GeneratorExit()])),
        min_size=1,
    ),
    data=st.data(),
)
def test_gauges_account_for_every_open_request_in_any_interleaving(
    hooks: Any,
    expose: Any,
    plan: dict[str, tuple[int, int, BaseException | None]],
    data: st.DataObject,
) -> None:
    lives = Lives(hooks)
    ahead: dict[str, list[Callable[[str], None]]] = {
        name: [
            lives.arrive,
            *[lives.submit] * before,
            functools.partial(lives.finish, error=error),
            *[lives.submit] * after,
        ]
        for name, (before, after, error) in plan.items()
    }
    total = {name: len(steps) for name, steps in ahead.items()}
    end_at = {name: before + 2 for name, (before, _, _) in plan.items()}
    with expose() as exposed:
        exposed.join()
        while any(ahead.values()):
            name = data.draw(st.sampled_from(sorted(name for name in ahead if ahead[name])))
            ahead[name].pop(0)(name)
            done = {name: total[name] - len(steps) for name, steps in ahead.items()}
            is_open = [name for name in plan if 0 < done[name] < end_at[name]]
            running = [name for name in is_open if done[name] > 1]
            assert exposed.value("num_requests_running", **MODEL) == len(running), done
            assert exposed.value("num_requests_waiting", **MODEL) == len(is_open) - len(running)
        assert exposed.value("num_requests_running", **MODEL) == 0
        assert exposed.value("num_requests_waiting", **MODEL) == 0


# Audio


def test_packets_add_up_to_frames_of_their_own_replica(feed: Feed, exposed: Any) -> None:
    exposed.join()
    for index, (samples, replica) in enumerate([(1920, 3), (7680, 3), (100, 0)]):
        feed.packet(index=index, samples=samples, replica=replica)
    assert exposed.value("audio_frames_total", **STAGE) == 9600
    assert exposed.value("audio_frames_total", **{**STAGE, "replica": "0"}) == 100


def test_first_packet_alone_is_timed(feed: Feed, exposed: Any) -> None:
    exposed.join()
    for index, seconds in enumerate((0.25, 0.5, 1.0)):
        feed.packet(index=index, since_arrival_seconds=seconds)
    assert exposed.value("audio_ttfp_seconds_count", **STAGE) == 1
    assert exposed.value("audio_ttfp_seconds_sum", **STAGE) == 0.25


def test_whole_output_has_frames_but_no_first_packet(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.packet(streamed=False)
    feed.finish_audio(streamed=False, first_packet_seconds=None)
    assert exposed.value("audio_frames_total", **STAGE) == 480
    assert not exposed.value("audio_ttfp_seconds_count", **STAGE)
    assert exposed.missing() == {}, "nothing is missing of what nobody could have"


def test_completed_audio_is_measured_against_its_generation(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.finish_audio(duration_seconds=2.0, generation_seconds=1.5)
    assert exposed.value("audio_duration_seconds_sum", **STAGE) == 2.0
    assert exposed.value("audio_duration_seconds_count", **STAGE) == 1
    assert exposed.value("audio_rtf_sum", **STAGE) == 0.75
    assert exposed.value("audio_rtf_count", **STAGE) == 1
    assert exposed.missing() == {}


def test_generation_of_0_seconds_is_a_measurement(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.finish_audio(generation_seconds=0.0)
    assert exposed.value("audio_rtf_count", **STAGE) == 1
    assert exposed.value("audio_rtf_sum", **STAGE) == 0.0


UNKNOWN_RATE = {"sample_rate": None, "duration_seconds": None}
EMPTY = {"samples": 0, "duration_seconds": None, "first_packet_seconds": None}


@pytest.mark.parametrize(
    ("happened", "missing"),
    [
        (
            lambda feed: feed.finish_audio(**UNKNOWN_RATE),
            {("audio_duration_seconds", "no_sample_rate"), ("audio_rtf", "no_sample_rate")},
        ),
        (
            lambda feed: feed.finish_audio(generation_seconds=None),
            {("audio_rtf", "no_generation_time")},
        ),
        (
            lambda feed: feed.finish_audio(replica=None),
            {("audio_duration_seconds", "unknown_replica"), ("audio_rtf", "unknown_replica")},
        ),
        (
            lambda feed: feed.finish_audio(**EMPTY),
            {
                ("audio_duration_seconds", "empty_audio"),
                ("audio_rtf", "empty_audio"),
                ("audio_ttfp_seconds", "empty_audio"),
            },
        ),
        (
            lambda feed: feed.finish_audio(**EMPTY, streamed=False),
            {("audio_duration_seconds", "empty_audio"), ("audio_rtf", "empty_audio")},
        ),
        (
            lambda feed: feed.packet(replica=None),
            {
                ("audio_frames_total", "unknown_replica"),
                ("audio_ttfp_seconds", "unknown_replica"),
            },
        ),
        (
            lambda feed: feed.packet(replica=None, index=1),
            {("audio_frames_total", "unknown_replica")},
        ),
        (
            lambda feed: feed.packet(replica=None, streamed=False),
            {("audio_frames_total", "unknown_replica")},
        ),
    ],
)
def test_sample_that_could_not_be_measured_is_counted_with_its_reason(
    feed: Feed, exposed: Any, happened: Callable[[Feed], None], missing: set[tuple[str, str]]
) -> None:
    exposed.join()
    happened(feed)
    assert exposed.missing() == dict.fromkeys(missing, 1)
    for family, _ in missing:
        for suffix in ("", "_count"):
            assert not exposed.value(family + suffix, **STAGE), f"{family} has a made-up value"


def test_missing_samples_name_families_of_the_catalogue(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.finish_audio(replica=None)
    feed.packet(replica=None)
    assert {family for family, _ in exposed.missing()} <= {f.stem for f in catalog.FAMILIES}


# The plugin about itself


def test_seam_that_is_applied_late_is_shown_as_applied_only(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.report("deferred", reason="module not imported yet")
    feed.report("skipped", name="other", reason="no class Other")
    feed.report("applied")
    samples = scrape(exposed.registry)["vllm:omni_metrics_patch_info"]
    assert {(s.labels["patch"], s.labels["status"], s.labels["reason"]) for s in samples} == {
        ("generate", "applied", ""),
        ("other", "skipped", "no class Other"),
    }
    assert {sample.value for sample in samples} == {1}


def test_faults_of_hook_plugins_are_counted_by_plugin_and_hook(
    feed: Feed, registry: HookRegistry, exposed: Any
) -> None:
    class Broken:
        @hookimpl
        def omni_request_arrived(self, event: RequestArrived) -> None:
            raise RuntimeError("broken")

    broken = Broken()
    registry.register(broken, "broken")
    try:
        exposed.join()
        for name in "ab":
            feed.arrive(name)
    finally:
        registry.unregister(broken)
    fault = {"plugin": "broken", "hook": "omni_request_arrived"}
    assert exposed.value("metrics_hook_errors_total", **fault) == 2
    assert exposed.value("metrics_hook_calls_total", **fault) == 2
    assert exposed.value("metrics_hook_listening", **fault) == 0, "it was unregistered"
    assert exposed.value("num_requests_waiting", **MODEL) == 2, "the exporter heard of them"


def accounts(exposed: Any) -> set[tuple[str, str]]:
    """Plugin and hook of every account on the page."""
    return {
        (sample.labels["plugin"], sample.labels["hook"])
        for name, samples in scrape(exposed.registry).items()
        if "metrics_hook_" in name
        for sample in samples
    }


def test_exporters_own_hooks_have_accounts_only_where_they_failed(
    feed: Feed, registry: HookRegistry, exposed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listener:
        @hookimpl
        def omni_media_packet(self, event: MediaPacket) -> None: ...

    registry.register(Listener(), "third_party")
    exposed.join()
    feed.arrive()
    feed.packet()
    assert accounts(exposed) == {("third_party", "omni_media_packet")}, "before its first call, too"
    monkeypatch.setattr(RequestSamples, "model", lambda *_: 1 / 0)
    feed.arrive("b")
    failed = {"plugin": "prometheus", "hook": "omni_request_arrived"}
    assert exposed.value("metrics_hook_errors_total", **failed) == 1
    assert exposed.value("metrics_hook_calls_total", **failed) == 2
    assert exposed.value("metrics_hook_listening", **failed) == 1
    assert accounts(exposed) == {
        ("third_party", "omni_media_packet"),
        ("prometheus", "omni_request_arrived"),
    }


def test_events_by_which_a_server_is_judged_are_counted(feed: Feed, exposed: Any) -> None:
    exposed.join()
    for at_once in ("omni_request_arrived", "omni_request_finished"):
        assert exposed.value("metrics_events_total", hook=at_once) == 0
    for name in "ab":
        feed.arrive(name)
        feed.finish(name)
    feed.packet()
    events = {
        sample.labels["hook"]: sample.value
        for sample in scrape(exposed.registry)["vllm:omni_metrics_events"]
    }
    assert events == {
        "omni_request_arrived": 2,
        "omni_request_finished": 2,
        "omni_stage_finished": 0,
        "omni_media_packet": 1,
    }


def test_fault_in_the_hooks_own_counts_leaves_the_scrape_alone(
    feed: Feed, exposed: Any, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    exposed.join()
    feed.packet()
    monkeypatch.setattr(exposed.exporter._own_counts, "_hook_stats", lambda: 1 / 0)
    assert exposed.value("audio_frames_total", **STAGE) > 0
    assert len(log.messages) == 1
    place = "publishing the plugin's own counts"
    assert exposed.value("metrics_internal_errors_total", place=place) >= 1, "it counts itself"


def test_internal_errors_are_counted_by_place_whoever_scrapes(exposed: Any) -> None:
    exposed.join()
    for place in ("here", "there", "here"):
        with internal_errors.suppressed(place):
            raise RuntimeError("on purpose")
        exposed.value("metrics_internal_errors_total", place=place)
    internal_errors.errors.add("there", 3)  # reported by a stage's process
    assert exposed.value("metrics_internal_errors_total", place="here") == 2
    assert exposed.value("metrics_internal_errors_total", place="there") == 4


def test_every_part_hears_of_an_event_that_several_have_a_use_for(feed: Feed, exposed: Any) -> None:
    exposed.join(stage=1, replica=3)
    feed.finish_stage(generation_seconds=1.25)
    assert exposed.value("diffusion_steps_total", **STAGE) == 20
    assert exposed.value("stage_generation_time_seconds_sum", **STAGE) == 1.25


# Side by side with the engine's own families


def drop_every_name_with_vllm(registry: CollectorRegistry) -> None:
    """``unregister_vllm_metrics`` up to vLLM 0.22."""
    for collector in list(registry._collector_to_names):
        if hasattr(collector, "_name") and "vllm" in collector._name:
            registry.unregister(collector)


def drop_every_name_that_begins_with_vllm(registry: CollectorRegistry) -> None:
    """``unregister_vllm_metrics`` from vLLM 0.24 on."""
    for collector in list(registry._collector_to_names):
        if hasattr(collector, "_name") and collector._name.startswith("vllm:"):
            registry.unregister(collector)


@pytest.mark.parametrize(
    "unregister", [drop_every_name_with_vllm, drop_every_name_that_begins_with_vllm]
)
def test_families_and_counts_survive_the_engines_clean_up(
    feed: Feed, exposed: Any, unregister: Callable[[CollectorRegistry], None]
) -> None:
    exposed.join()
    feed.packet()
    before = scrape(exposed.registry)
    for _ in range(2):
        Gauge("vllm:num_requests_running", "the engine's own", registry=exposed.registry)
        unregister(exposed.registry)
        assert scrape(exposed.registry) == before, "the engine's family went, ours stayed"
    feed.packet(index=1)
    assert exposed.value("audio_frames_total", **STAGE) == 960


def test_families_of_others_with_the_same_names_are_refused_while_ours_are_there(
    exposed: Any,
) -> None:
    exposed.join()
    with pytest.raises(ValueError, match="vllm:omni_audio_frames"):
        Counter("vllm:omni_audio_frames_total", "a double", registry=exposed.registry)


@pytest.mark.parametrize("published", [False, True])
def test_closed_exporter_leaves_nothing_behind(expose: Any, published: bool) -> None:
    with expose() as exposed:
        if published:
            exposed.join()
            assert scrape(exposed.registry)
    assert scrape(exposed.registry) == {}


def test_engines_family_of_the_same_name_gives_way(feed: Feed, expose: Any, log: Any) -> None:
    registry = CollectorRegistry()
    Gauge(f"{catalog.PREFIX}num_requests_running", "the engine's", registry=registry).set(7)
    kept = Gauge("vllm_omni:num_requests_running", "the engine's", registry=registry)
    with expose(publish_in=registry) as exposed:
        exposed.join()
        feed.arrive()
        feed.start()
        assert exposed.value("num_requests_running", **MODEL) == 1
    assert kept in registry._collector_to_names
    assert any("in the engine's place" in message for message in log.messages)
