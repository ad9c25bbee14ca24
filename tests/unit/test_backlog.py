"""What is left of the open requests: laws that hold after any events, and figures by hand."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin.exporters.prometheus.backlog import BacklogSamples
from vllm_omni_metrics_plugin.exporters.prometheus.costs import (
    HALF_LIFE,
    DiffusionCost,
    TokenCost,
)
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.exporters.prometheus.remaining import Remaining
from vllm_omni_metrics_plugin.hooks import Demand, ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.testing import make_event

DIFFUSION = ("tiny", 0, 0)
TOKENS = [("tiny", 1, 0), ("tiny", 1, 1)]
REPLICAS = [DIFFUSION, *TOKENS]
MODEL = {"model_name": "tiny"}
REPLICA = {"model_name": "tiny", "stage": 0, "replica": 0}
HERE = {**MODEL, "stage": "0", "replica": "0"}


def pipeline(*, costs: bool = True) -> Remaining:
    """One replica that makes images and two of tokens: 2 s for 8 pixels, 3 s for 6 tokens."""
    remaining = Remaining()
    for replica in REPLICAS:
        remaining.joined(replica, "llm" if replica in TOKENS else "diffusion")
    if costs:
        remaining.arrived("first", "tiny")
        remaining.submitted("first", DIFFUSION, demands(8, 10))
        execute(remaining, "first", DIFFUSION, 100.0, 102.0)
        remaining.submitted("first", TOKENS[0])
        execute(remaining, "first", TOKENS[0], 102.0, 105.0, tokens=6)
        remaining.closed("first")
    return remaining


def execute(
    remaining: Remaining,
    request_id: str,
    replica: Any,
    started_at: float,
    ended_at: float,
    tokens: int | None = None,
    *,
    cut: bool = False,
) -> None:
    remaining.started(request_id, replica, started_at)
    remaining.ended(request_id, replica, ended_at, is_known=True)
    remaining.finished(request_id, replica, tokens, cut=cut)


def demands(pixels: int | None, tokens: int | None = None) -> tuple[Demand, ...]:
    """Of a picture in one step, and of tokens if any are asked for."""
    picture = Demand(steps=1, pixels=pixels)
    return (picture,) if tokens is None else (picture, Demand(tokens=tokens))


def submit(remaining: Remaining, request_id: str, *asked: int) -> None:
    remaining.arrived(request_id, "tiny")
    remaining.submitted(request_id, DIFFUSION, demands(*asked))


def test_nothing_is_said_before_the_first_finish_and_0_when_all_is_done() -> None:
    remaining = pipeline(costs=False)
    assert remaining.read(0.0) == ({}, {})
    submit(remaining, "a", 8, 10)
    assert remaining.read(100.0) == ({}, {})
    execute(remaining, "a", DIFFUSION, 100.0, 102.0)
    # What the other stage will take is not known, so neither is the whole.
    assert remaining.read(102.0) == ({}, {DIFFUSION: 0.0})
    remaining.submitted("a", TOKENS[0])
    execute(remaining, "a", TOKENS[0], 102.0, 105.0, tokens=6)
    remaining.closed("a")
    assert remaining.read(105.0) == ({"tiny": 0.0}, dict.fromkeys(REPLICAS, 0.0))


def test_stage_that_no_request_came_to_does_not_count() -> None:
    remaining = pipeline(costs=False)
    submit(remaining, "a", 8)
    execute(remaining, "a", DIFFUSION, 100.0, 102.0)
    assert remaining.read(102.0) == ({"tiny": 0.0}, {DIFFUSION: 0.0})
    submit(remaining, "b", 8, 5)
    assert remaining.read(102.0) == ({}, {DIFFUSION: 2.0})


def test_open_requests_count_by_what_they_ask_in_every_stage_that_they_come_to() -> None:
    remaining = pipeline()
    submit(remaining, "a", 16, 4)  # 4 s, then 4 of the 6 tokens at 0.5 s
    assert remaining.read(105.0) == ({"tiny": 4.0}, {DIFFUSION: 4.0, **dict.fromkeys(TOKENS, 1.0)})
    submit(remaining, "b", 8)
    assert remaining.read(105.0) == ({"tiny": 6.0}, {DIFFUSION: 6.0, **dict.fromkeys(TOKENS, 1.0)})
    execute(remaining, "a", DIFFUSION, 105.0, 109.0)
    remaining.submitted("a", TOKENS[1])
    assert remaining.read(109.0).replicas == {DIFFUSION: 2.0, TOKENS[0]: 0.0, TOKENS[1]: 2.0}


def test_model_has_what_its_slowest_stage_has_for_each_of_its_replicas() -> None:
    remaining = pipeline()
    for name in "abcdef":
        submit(remaining, name, 1, 20)  # 0.25 s there, 3 s here
    assert remaining.read(105.0).models == {"tiny": 9.0}
    for name in "abcdef":
        remaining.submitted(name, TOKENS[0])
    seen = remaining.read(105.0)
    assert seen.replicas == {DIFFUSION: 1.5, TOKENS[0]: 18.0, TOKENS[1]: 0.0}
    assert seen.models == {"tiny": 9.0}


def test_request_has_its_share_of_what_a_replica_executes_at_once() -> None:
    remaining = pipeline()
    for name in "ab":
        submit(remaining, name, 16)  # 4 s
    remaining.started("a", DIFFUSION, 200.0)
    assert remaining.read(201.0).replicas[DIFFUSION] == 7.0
    remaining.started("b", DIFFUSION, 201.0)
    # Together they still get one second a second.
    assert remaining.read(203.0).replicas[DIFFUSION] == 5.0
    remaining.ended("a", DIFFUSION, 205.0, is_known=True)
    remaining.finished("a", DIFFUSION, None, cut=False)  # took 3 s, not 5
    remaining.closed("a")
    cost = DiffusionCost()
    for pixels, seconds in ((8, 2.0), (16, 3.0)):
        cost.learn(seconds, demands(pixels)[0], None, cut=False)
    expected = cost.expect(demands(16)[0])
    assert expected is not None
    assert remaining.read(206.0).replicas[DIFFUSION] == pytest.approx(expected - 3.0)


def test_start_that_is_told_late_takes_back_nothing_that_was_given() -> None:
    remaining = pipeline()
    for name in "abc":
        submit(remaining, name, 40)  # 10 s
    remaining.started("a", DIFFUSION, 200.0)
    remaining.started("b", DIFFUSION, 202.0)
    remaining.started("c", DIFFUSION, 201.0)
    assert remaining.read(202.0).replicas[DIFFUSION] == 28.0
    assert remaining.read(205.0).replicas[DIFFUSION] == 25.0


def test_finish_that_is_told_twice_teaches_once() -> None:
    remaining = pipeline()
    submit(remaining, "a", 8)
    execute(remaining, "a", DIFFUSION, 200.0, 206.0)
    remaining.finished("a", DIFFUSION, None, cut=False)
    remaining.closed("a")
    submit(remaining, "b", 8)
    fades = 0.5 ** (1 / HALF_LIFE)
    expected = (2.0 * fades + 6.0) / (fades + 1.0)
    assert remaining.read(206.0).models["tiny"] == pytest.approx(expected)


def test_event_of_a_request_that_is_not_open_leaves_nothing_behind() -> None:
    remaining = pipeline()
    submit(remaining, "a", 8)
    remaining.closed("a")
    remaining.submitted("a", DIFFUSION, demands(8))
    execute(remaining, "a", DIFFUSION, 200.0, 201.0)
    remaining.started("nobody", DIFFUSION, 200.0)
    assert not remaining._requests
    assert remaining.read(201.0).models == {"tiny": 0.0}


def test_request_that_takes_longer_than_expected_owes_nothing_and_takes_from_nobody() -> None:
    remaining = pipeline()
    for name in "ab":
        submit(remaining, name, 8)
    remaining.started("a", DIFFUSION, 200.0)
    assert remaining.read(210.0).replicas[DIFFUSION] == 2.0


def test_aborted_request_counts_until_the_engine_is_done_with_it() -> None:
    remaining = pipeline()
    submit(remaining, "a", 16, 10)
    remaining.started("a", DIFFUSION, 200.0)
    remaining.closed("a")
    # Nothing of it comes to the other stage any more.
    assert remaining.read(201.0).replicas == {DIFFUSION: 3.0, **dict.fromkeys(TOKENS, 0.0)}
    remaining.ended("a", DIFFUSION, 202.0, is_known=True)
    assert remaining.read(202.0).models == {"tiny": 0.0}
    submit(remaining, "b", 8)
    assert remaining.read(202.0).models == {"tiny": 2.0}, "it was learned from"


def test_lost_start_is_not_learned_from() -> None:
    remaining = pipeline()
    submit(remaining, "a", 8)
    remaining.started("a", DIFFUSION, 200.0)
    remaining.ended("a", DIFFUSION, 290.0, is_known=False)
    remaining.finished("a", DIFFUSION, None, cut=False)
    submit(remaining, "b", 8)
    remaining.finished("b", DIFFUSION, None, cut=False)  # and its start is late
    remaining.started("b", DIFFUSION, 290.0)
    remaining.ended("b", DIFFUSION, 291.0, is_known=True)
    assert remaining.read(300.0).models == {"tiny": 0.0}
    submit(remaining, "c", 8)
    assert remaining.read(300.0).models == {"tiny": 2.0}


def test_replica_that_left_has_no_backlog_and_neither_has_what_it_had() -> None:
    remaining = pipeline()
    for name, replica in zip("ab", TOKENS, strict=True):
        submit(remaining, name, 8, 6)
        execute(remaining, name, DIFFUSION, 200.0, 200.0)
        remaining.submitted(name, replica)
        remaining.started(name, replica, 200.0)
    remaining.closed("b")
    remaining.left(TOKENS[1])
    assert remaining.read(201.0).replicas == {DIFFUSION: 0.0, TOKENS[0]: 2.0}
    assert remaining.read(201.0).models == {"tiny": 2.0}
    assert not remaining._going_on
    remaining.ended("b", TOKENS[1], 201.0, is_known=True)  # told late
    remaining.left(DIFFUSION)
    assert remaining.read(201.0).models == {"tiny": 2.0}
    # What comes back under its number is another one, and has nothing to do.
    remaining.left(TOKENS[0])
    for replica in REPLICAS:
        remaining.joined(replica, "llm")
    assert remaining.read(202.0).replicas == dict.fromkeys(REPLICAS, 0.0)


@pytest.mark.parametrize("said", [False, True])
def test_request_that_does_not_say_what_it_asks_takes_what_one_takes(said: bool) -> None:
    cost = DiffusionCost()
    image = Demand(steps=2, pixels=4)
    assert cost.expect(image) is None
    cost.learn(3.0, image if said else Demand(steps=2), None, cut=False)
    assert cost.expect(Demand()) == cost.expect(Demand(steps=8)) == 3.0
    assert cost.expect(image) == 3.0
    assert cost.expect(Demand(steps=2, pixels=8)) == (6.0 if said else 3.0)


@pytest.mark.parametrize(("once", "each"), [(0.5, 0.25), (2.0, 0.0), (0.0, 0.125), (0.0, 1.0)])
def test_what_a_pixel_takes_once_and_for_each_step_is_told_apart(once: float, each: float) -> None:
    cost = DiffusionCost()
    for pixels, steps in itertools.product((16, 64, 256), (2, 8, 20)):
        image = Demand(steps=steps, pixels=pixels)
        cost.learn(pixels * (once + each * steps), image, None, cut=False)
    for pixels, steps in ((16, 20), (100, 4), (1000, 50)):
        seconds = cost.expect(Demand(steps=steps, pixels=pixels))
        assert seconds == pytest.approx(pixels * (once + each * steps))


def test_images_of_the_same_steps_say_nothing_of_what_a_pixel_takes_once() -> None:
    chance = random.Random(0)
    for _ in range(50):  # as it is a matter of rounding
        cost = DiffusionCost()
        for _ in range(60):
            image = Demand(steps=28, pixels=chance.randrange(10**5, 10**6))
            cost.learn(chance.uniform(0.1, 5.0), image, None, cut=False)
        few, many = (cost.expect(Demand(steps=steps, pixels=10**6)) for steps in (7, 28))
        assert few is not None
        assert many == pytest.approx(4 * few)


IMAGES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 30), st.floats(0.001, 10.0)), min_size=1
)


@given(images=IMAGES)
def test_more_steps_never_cost_less_and_no_image_costs_less_than_nothing(
    images: list[tuple[int, int, float]],
) -> None:
    cost = DiffusionCost()
    for pixels, steps, seconds in images:
        cost.learn(seconds, Demand(steps=steps, pixels=10**6 * pixels), None, cut=False)
    seconds_of = [cost.expect(Demand(steps=steps, pixels=10**6)) or 0.0 for steps in (1, 2, 30, 99)]
    assert seconds_of[0] >= 0.0
    assert seconds_of == sorted(seconds_of)


@given(images=IMAGES)
def test_what_was_made_is_expected_to_take_what_it_took_in_all(
    images: list[tuple[int, int, float]],
) -> None:
    cost = DiffusionCost()
    for pixels, steps, seconds in images:
        cost.learn(seconds, Demand(steps=steps, pixels=10**6 * pixels), None, cut=False)
    expected = took = 0.0
    for pixels, steps, seconds in images:
        fades = 0.5 ** (1 / HALF_LIFE)
        expected = fades * expected + (cost.expect(Demand(steps=steps, pixels=10**6 * pixels)) or 0)
        took = fades * took + seconds
    assert expected == pytest.approx(took, rel=1e-4)


def test_half_of_what_is_known_is_of_the_last_requests() -> None:
    image = Demand(steps=1, pixels=4)
    costs = ((DiffusionCost(), image), (DiffusionCost(), Demand()), (TokenCost(), image))
    for cost, asked in costs:
        for seconds in (4.0, 0.0):
            for _ in range(20 * HALF_LIFE if seconds else HALF_LIFE):
                cost.learn(seconds, asked, 10, cut=False)
        assert cost.expect(asked) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize(
    ("finished", "limit", "seconds"),
    [
        ([(10, False)], None, 10.0),
        ([(10, False)], 4, 4.0),
        ([(10, False)], 40, 10.0),
        ([(10, False), (30, False)], 40, 20.0),
        # What the limit cut would have been longer.
        ([(10, True), (30, True)], 40, 40.0),
        ([(10, True), (30, True)], None, 20.0),
        ([(10, True), (30, False)], 80, 40.0),
    ],
)
def test_tokens_are_expected_as_many_as_others_had_but_not_more_than_the_limit(
    finished: list[tuple[int, bool]], limit: int | None, seconds: float
) -> None:
    cost = TokenCost()
    assert cost.expect(Demand(tokens=limit)) is None
    for tokens, cut in finished:
        cost.learn(float(tokens), Demand(), tokens, cut=cut)
    assert cost.expect(Demand(tokens=limit)) == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize("tokens", [None, 0])
def test_stage_that_counts_no_tokens_takes_what_one_request_takes(tokens: int | None) -> None:
    cost = TokenCost()
    cost.learn(1.25, Demand(tokens=100), tokens, cut=False)
    assert cost.expect(Demand(tokens=100)) == cost.expect(Demand()) == 1.25


EVENTS = st.tuples(
    st.sampled_from(
        ["arrived", "submitted", "resubmitted", "started", "ended", "finished", "closed", "left"]
    ),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(REPLICAS),
    st.sampled_from([0.0, 0.25, 3.0, -0.5]),
)


def tell(remaining: Remaining, what: str, name: str, replica: Any, at: float) -> None:
    if what == "arrived":
        remaining.arrived(name, "tiny")
    elif what == "submitted":
        remaining.submitted(name, replica, demands(None if name == "a" else 8 * ord(name), 10))
    elif what == "resubmitted":
        remaining.submitted(name, replica)
    elif what == "started":
        remaining.started(name, replica, at)
    elif what == "ended":
        remaining.ended(name, replica, at, is_known=name != "c")
    elif what == "finished":
        remaining.finished(name, replica, 5, cut=name == "b")
    elif what == "closed":
        remaining.closed(name)
    elif replica in TOKENS:
        remaining.left(replica)
        remaining.joined(replica, "llm")


@settings(max_examples=300)
@given(events=st.lists(EVENTS, max_size=40))
def test_any_events_in_any_order_leave_nothing_behind_and_never_less_than_nothing(
    events: list[tuple[str, str, Any, float]],
) -> None:
    remaining = pipeline()
    now = 200.0
    for what, name, replica, seconds in events:
        tell(remaining, what, name, replica, now + min(0.0, seconds))
        before = remaining.read(now)
        assert all(left >= 0.0 for left in (*before.models.values(), *before.replicas.values()))
        # While nothing else happens, what is left becomes less, by no more than the time.
        now += max(0.0, seconds)
        after = remaining.read(now)
        assert after.models.keys() == before.models.keys() == {"tiny"}
        for replica_, left in before.replicas.items():
            fallen = left - after.replicas[replica_]
            assert -1e-9 <= fallen <= max(0.0, seconds) + 1e-9
        assert after.models["tiny"] <= before.models["tiny"] + 1e-9
    for name in "abcd":
        remaining.closed(name)
        for replica in REPLICAS:
            remaining.ended(name, replica, now, is_known=True)
    assert remaining.read(now) == ({"tiny": 0.0}, dict.fromkeys(REPLICAS, 0.0))
    assert not remaining._requests
    assert not remaining._going_on
    assert not any(shares.executing for shares in remaining._shares.values())


@settings(max_examples=100)
@given(
    asks=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    every=st.sampled_from([0.125, 0.75, 4.0]),
)
def test_queue_of_requests_that_cost_what_they_ask_for_ends_when_it_said(
    asks: list[int], every: float
) -> None:
    remaining = pipeline()
    for number, asked in enumerate(asks):
        submit(remaining, f"r{number}", asked)
    now = 200.0
    end = now + remaining.read(now).models["tiny"]
    look = now
    for number, asked in enumerate(asks):
        remaining.started(f"r{number}", DIFFUSION, now)
        now += asked / 4
        while look < now:
            assert remaining.read(look).models["tiny"] == pytest.approx(end - look)
            look += every
        remaining.ended(f"r{number}", DIFFUSION, now, is_known=True)
        remaining.finished(f"r{number}", DIFFUSION, None, cut=False)
        remaining.closed(f"r{number}")
    assert now == pytest.approx(end)
    assert remaining.read(now).models == {"tiny": 0.0}


def shown(exposed: Any) -> dict[str, dict[tuple[str, ...], float]]:
    """The series of both families, by the values of their labels."""
    return {
        family.name.removeprefix("vllm:omni_"): {
            tuple(sample.labels.values()): sample.value for sample in family.samples
        }
        for family in exposed.registry.collect()
        if family.name.endswith("backlog_seconds")
    }


NONE: dict[str, dict[tuple[str, ...], float]] = {"backlog_seconds": {}, "stage_backlog_seconds": {}}


@pytest.fixture
def image(exposed: Any, feed: Feed) -> Any:
    """A replica that made an image of 8 pixels in 2 s."""
    exposed.join(stage=0, stage_type="diffusion")
    assert shown(exposed) == NONE
    feed.arrive("first")
    feed.submit("first", demands=demands(8))
    assert shown(exposed) == NONE
    feed.start("first", started_at=100.0)
    feed.end("first", started_at=100.0, ended_at=102.0)
    feed.finish_stage(request_id="first", stage=0, replica=0, tokens_out=None)
    feed.finish("first")
    assert shown(exposed) == {
        "backlog_seconds": {("tiny",): 0.0},
        "stage_backlog_seconds": {("tiny", "0", "0"): 0.0},
    }
    return exposed


def test_scrape_shows_what_is_left_in_its_moment(image: Any, feed: Feed, clock: Any) -> None:
    feed.arrive("a")
    assert image.value("backlog_seconds", **MODEL) == 0.0
    feed.submit("a", demands=demands(16))
    assert image.value("backlog_seconds", **MODEL) == 4.0
    feed.start("a", started_at=clock.now)
    clock.advance(1.5)
    assert image.value("backlog_seconds", **MODEL) == 2.5
    assert image.value("stage_backlog_seconds", **HERE) == 2.5
    feed.finish("a", "abort")
    clock.advance(1.0)
    assert image.value("backlog_seconds", **MODEL) == 1.5
    feed.end("a", started_at=clock.now - 2.5, ended_at=clock.now)
    assert image.value("backlog_seconds", **MODEL) == 0.0
    feed.arrive("b")
    feed.submit("b", demands=demands(16))
    assert image.value("backlog_seconds", **MODEL) == 4.0
    feed.finish("b", "abort")
    assert image.value("backlog_seconds", **MODEL) == 0.0


def test_scrape_that_shows_nobody_open_shows_nothing_left(
    image: Any, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.arrive("a")
    feed.submit("a", demands=demands(16))
    queues = image.exporter._queues
    publish = queues.publish

    def publish_after_the_last_end() -> None:
        feed.finish("a")
        publish()

    monkeypatch.setattr(queues, "publish", publish_after_the_last_end)
    assert shown(image)["backlog_seconds"] == {("tiny",): 0.0}


def test_length_that_a_limit_cut_says_that_the_next_one_may_be_longer(
    exposed: Any, feed: Feed
) -> None:
    exposed.join(stage=0)
    expected = iter((None, 30.0, 30.0))
    for name, reason, tokens, at in (("a", "length", 30, 100.0), ("b", "stop", 15, 200.0)):
        feed.arrive(name)
        feed.submit(name, demands=(Demand(tokens=30),))
        assert shown(exposed)["backlog_seconds"].get(("tiny",)) == next(expected)
        feed.start(name, started_at=at)
        feed.end(name, started_at=at, ended_at=at + tokens)
        here = {"request_id": name, "stage": 0, "replica": 0}
        feed.finish_stage(**here, tokens_out=tokens, finish_reason=reason)
        feed.finish(name)
    feed.arrive("c")
    feed.submit("c", demands=(Demand(tokens=30),))
    assert exposed.value("backlog_seconds", **MODEL) == pytest.approx(next(expected))


def test_series_that_is_not_known_any_more_is_gone_and_comes_back(image: Any, feed: Feed) -> None:
    image.hooks.omni_replica_left(make_event(ReplicaLeft, **REPLICA))
    assert shown(image) == NONE
    image.join(stage=0, stage_type="diffusion")
    assert shown(image)["backlog_seconds"] == {("tiny",): 0.0}


def test_lost_times_and_parts_of_guided_generation_teach_nothing(image: Any, feed: Feed) -> None:
    feed.arrive("a")
    feed.submit("a", demands=demands(8))
    feed.start("a", started_at=None)
    feed.start("a__cfg", parent_request_id="a")
    feed.end("a", started_at=None, ended_at=500.0)
    feed.finish_stage(request_id="a", stage=0, replica=0)
    feed.arrive("b")
    feed.submit("b", demands=demands(8))
    assert image.value("backlog_seconds", **MODEL) == 2.0


def test_servers_that_share_the_stages_say_nothing(
    feed: Feed, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    families = Families({})
    samples = BacklogSamples(families)
    registry.register(samples, "backlog")
    samples.expect(make_event(ReplicaJoined, **REPLICA, stage_type="diffusion"))
    feed.arrive()
    feed.submit()
    feed.start(started_at=100.0)
    feed.end(started_at=100.0, ended_at=102.0)
    feed.finish_stage(request_id="a", stage=0, replica=0)
    samples.publish()
    assert families.registry.get_sample_value("vllm:omni_backlog_seconds", MODEL) is None
    assert samples._remaining.read(102.0).models == {"tiny": 0.0}
