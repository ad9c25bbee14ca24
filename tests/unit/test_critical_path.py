"""Where a request's time went: by hand for each kind of pipeline, and laws for any of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.channel.frames import FailedHalf, ReceivedHalf, SentHalf
from vllm_omni_metrics_plugin.hooks import PathSegment, RequestFinished, Segment
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests import StageWork, inputs
from vllm_omni_metrics_plugin.requests.critical_path import critical_path
from vllm_omni_metrics_plugin.requests.inputs import Inputs
from vllm_omni_metrics_plugin.requests.state import OpenRequests

Row = tuple[str, int, float, float]


def rows(path: tuple[PathSegment, ...]) -> list[Row]:
    return [(part.segment, part.stage, part.began_at, part.ended_at) for part in path]


class Request:
    """What is known of one that arrived at second 0; ``n`` is the stage in all of it."""

    def __init__(self) -> None:
        self.stages: dict[int, StageWork] = {}
        self.inputs: dict[int, Inputs] = {}

    def stage(
        self,
        n: int,
        submitted_at: float,
        started_at: float | None,
        ended_at: float | None = None,
        *,
        diffusion: bool = False,
    ) -> None:
        work = self.stages[n] = StageWork(submitted_at, None)
        work.started, work.started_at = started_at is not None, started_at
        work.ended, work.ended_at = ended_at is not None, ended_at
        work.tells_end = diffusion

    def payload(
        self, n: int, sent_at: float | None, received_at: float, asked_at: float | None = None
    ) -> None:
        """From the stage before it, to stage ``n``."""
        key = f"r_{n - 1}_{received_at}"
        into = self.inputs.setdefault(n, Inputs())
        if sent_at is not None:
            into.sent(key, n - 1, sent_at)
        asked_at = received_at if asked_at is None else asked_at
        into.received(key, n - 1, asked_at, received_at)

    def path(
        self,
        until: float,
        n: int,
        output_at: float | None,
        since: float = 0.0,
        *,
        is_first_output: bool = False,
    ) -> list[Row]:
        return rows(
            critical_path(
                *(since, until, n, output_at, self.stages, self.inputs),
                is_first_output=is_first_output,
            )
        )


@pytest.fixture
def request_() -> Request:
    return Request()


def test_one_stage_alone(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=3.0, ended_at=9.0)
    assert request_.path(10.0, 0, 9.0) == [
        ("frontend", 0, 0.0, 1.0),
        ("queue", 0, 1.0, 3.0),
        ("execute", 0, 3.0, 9.0),
        ("delivery", 0, 9.0, 10.0),
    ]


def test_stage_that_is_fed_by_chunks_waits_for_the_last_one_before_its_packet(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.1, started_at=4.5)
    request_.payload(1, sent_at=3.0, received_at=3.5)
    request_.payload(1, sent_at=6.0, received_at=6.5)
    first = [
        ("frontend", 0, 0.0, 1.0),
        ("queue", 0, 1.0, 2.0),
        ("execute", 0, 2.0, 3.0),
        ("transfer", 1, 3.0, 3.5),
        ("queue", 1, 3.5, 4.5),
        ("execute", 1, 4.5, 5.0),
    ]
    assert request_.path(5.0, 1, None) == first
    assert request_.path(8.0, 1, 7.0) == [
        *first[:2],
        ("execute", 0, 2.0, 6.0),
        ("transfer", 1, 6.0, 6.5),
        ("execute", 1, 6.5, 7.0),
        ("delivery", 1, 7.0, 8.0),
    ]


def test_first_output_is_made_of_what_was_there_at_the_start_whatever_comes_meanwhile(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.1, started_at=4.0)
    request_.payload(1, sent_at=3.0, received_at=3.5)
    request_.payload(1, sent_at=5.0, received_at=6.0)
    way = [("frontend", 0, 0.0, 1.0), ("queue", 0, 1.0, 2.0), ("execute", 0, 2.0, 3.0)]
    slow = [*way, ("transfer", 1, 3.0, 3.5), ("queue", 1, 3.5, 4.0), ("execute", 1, 4.0, 9.0)]
    assert request_.path(9.0, 1, None, is_first_output=True) == slow
    assert request_.path(9.0, 1, None)[-2:] == [("transfer", 1, 5.0, 6.0), ("execute", 1, 6.0, 9.0)]
    # Its start may be told a moment early.
    request_.stage(1, submitted_at=1.1, started_at=3.25)
    early = request_.path(4.0, 1, None, is_first_output=True)
    assert early == [*way, ("transfer", 1, 3.0, 3.5), ("execute", 1, 3.5, 4.0)]


def test_three_stages_are_walked_to_the_payload_that_each_chunk_was_made_of(
    request_: Request,
) -> None:
    for n in range(3):
        request_.stage(n, submitted_at=1.0, started_at=1.0 + n)
    request_.payload(1, sent_at=1.5, received_at=1.75)
    request_.payload(1, sent_at=4.0, received_at=4.25)
    request_.payload(2, sent_at=2.5, received_at=3.0)
    request_.payload(2, sent_at=5.0, received_at=5.5)
    assert request_.path(4.75, 2, None) == [
        ("frontend", 0, 0.0, 1.0),
        ("execute", 0, 1.0, 1.5),
        ("transfer", 1, 1.5, 1.75),
        ("queue", 1, 1.75, 2.0),
        ("execute", 1, 2.0, 2.5),
        ("transfer", 2, 2.5, 3.0),
        ("execute", 2, 3.0, 4.75),
    ]
    assert request_.path(6.0, 2, None)[1:] == [
        ("execute", 0, 1.0, 4.0),
        ("transfer", 1, 4.0, 4.25),
        ("execute", 1, 4.25, 5.0),
        ("transfer", 2, 5.0, 5.5),
        ("execute", 2, 5.5, 6.0),
    ]


def test_what_the_orchestrator_forwards_goes_from_the_end_of_one_stage_to_the_next_submit(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=5.0)
    request_.stage(1, submitted_at=5.5, started_at=7.0)
    assert request_.path(9.0, 1, None) == [
        ("frontend", 0, 0.0, 1.0),
        ("queue", 0, 1.0, 2.0),
        ("execute", 0, 2.0, 5.0),
        ("transfer", 1, 5.0, 5.5),
        ("queue", 1, 5.5, 7.0),
        ("execute", 1, 7.0, 9.0),
    ]


def test_whole_payload_that_comes_after_the_submit_is_what_the_stage_waited_for(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=5.0)
    request_.stage(1, submitted_at=5.5, started_at=7.0)
    request_.payload(1, sent_at=4.5, received_at=6.0)
    assert request_.path(9.0, 1, None)[2:] == [
        ("execute", 0, 2.0, 4.5),
        ("transfer", 1, 4.5, 6.0),
        ("queue", 1, 6.0, 7.0),
        ("execute", 1, 7.0, 9.0),
    ]


@pytest.mark.parametrize("came", [4.75, 5.0])
def test_payload_that_was_there_before_the_submit_has_delayed_nothing(
    request_: Request, came: float
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=5.0)
    request_.stage(1, submitted_at=5.5, started_at=7.0)
    request_.payload(1, sent_at=4.5, received_at=came)
    assert request_.path(9.0, 1, None)[2:4] == [
        ("execute", 0, 2.0, 5.0),
        ("transfer", 1, 5.0, 5.5),
    ]


def test_diffusion_stage_fetches_a_payload_when_it_needs_it(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=5.0)
    request_.stage(1, submitted_at=5.5, started_at=7.0, diffusion=True)
    request_.payload(1, sent_at=4.5, asked_at=7.5, received_at=8.0)
    assert request_.path(9.0, 1, None)[2:] == [
        ("execute", 0, 2.0, 5.0),
        ("transfer", 1, 5.0, 5.5),
        ("queue", 1, 5.5, 7.0),
        ("execute", 1, 7.0, 7.5),
        ("transfer", 1, 7.5, 8.0),
        ("execute", 1, 8.0, 9.0),
    ]


def test_diffusion_stage_that_asked_before_its_payload_was_sent_waited_for_its_sender(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=5.0)
    request_.stage(1, submitted_at=1.5, started_at=3.0, diffusion=True)
    request_.payload(1, sent_at=4.5, asked_at=4.0, received_at=5.0)
    assert request_.path(9.0, 1, None)[2:] == [
        ("execute", 0, 2.0, 4.5),
        ("transfer", 1, 4.5, 5.0),
        ("execute", 1, 5.0, 9.0),
    ]


def test_stage_that_is_fed_by_chunks_calls_for_each_all_the_time(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.0, started_at=3.0)
    request_.payload(1, sent_at=4.0, asked_at=4.25, received_at=4.5)
    assert request_.path(9.0, 1, None)[2:] == [
        ("execute", 0, 2.0, 4.0),
        ("transfer", 1, 4.0, 4.5),
        ("execute", 1, 4.5, 9.0),
    ]


def test_what_is_forwarded_comes_from_the_stage_that_ended_last_before(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0, ended_at=3.0)
    request_.stage(1, submitted_at=3.0, started_at=3.0, ended_at=5.0)
    request_.stage(3, submitted_at=3.0, started_at=3.0, ended_at=6.0)
    request_.stage(2, submitted_at=5.5, started_at=5.5)
    assert request_.path(9.0, 2, None)[-3:] == [
        ("execute", 1, 3.0, 5.0),
        ("transfer", 2, 5.0, 5.5),
        ("execute", 2, 5.5, 9.0),
    ]


def test_time_before_the_client_waits_is_in_no_segment(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    assert request_.path(5.0, 0, None, since=3.0) == [("execute", 0, 3.0, 5.0)]
    assert request_.path(5.0, 0, None, since=1.5) == [
        ("queue", 0, 1.5, 2.0),
        ("execute", 0, 2.0, 5.0),
    ]


def test_what_is_not_known_is_unknown_and_the_rest_is_not(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.0, started_at=None)
    request_.payload(1, sent_at=3.0, received_at=3.5)
    assert request_.path(5.0, 1, None) == [
        ("frontend", 0, 0.0, 1.0),
        ("queue", 0, 1.0, 2.0),
        ("execute", 0, 2.0, 3.0),
        ("transfer", 1, 3.0, 3.5),
        ("unknown", 1, 3.5, 5.0),
    ]


def test_what_comes_before_a_payload_of_an_unknown_sender_is_unknown(request_: Request) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.0, started_at=4.0)
    request_.payload(1, sent_at=None, received_at=3.5)
    assert request_.path(5.0, 1, None) == [
        ("unknown", 1, 0.0, 3.5),
        ("queue", 1, 3.5, 4.0),
        ("execute", 1, 4.0, 5.0),
    ]


def test_what_came_before_a_stage_that_nothing_is_known_to_have_fed_is_unknown(
    request_: Request,
) -> None:
    request_.stage(0, submitted_at=1.0, started_at=2.0)
    request_.stage(1, submitted_at=1.1, started_at=4.0)
    assert request_.path(5.0, 1, None) == [("unknown", 1, 0.0, 4.0), ("execute", 1, 4.0, 5.0)]
    assert request_.path(5.0, 7, None) == [("unknown", 7, 0.0, 5.0)]


def test_ends_of_a_payload_are_joined_in_any_order() -> None:
    for sent_first in (True, False):
        into = Inputs()
        if sent_first:
            into.sent("k", 0, 1.0)
        into.received("k", 0, 2.0, 3.0)
        if not sent_first:
            into.sent("k", 0, 1.0)
        payload = into.latest(3.0)
        assert payload is not None
        assert (payload.sent_at, payload.asked_at, payload.received_at) == (1.0, 2.0, 3.0)
        assert into.latest(2.5) is None


def test_key_that_is_used_again_is_another_payload() -> None:
    into = Inputs()
    for at in (1.0, 5.0):
        into.sent("k", 0, at)
        into.received("k", 0, at + 1.0, at + 1.0)
    into.received("k", 0, 8.0, 8.0)
    sent = [found.sent_at for at in (2.0, 6.0, 8.0) if (found := into.latest(at))]
    assert sent == [1.0, 5.0, None]


def test_key_whose_sender_is_never_heard_of_is_another_payload_each_time() -> None:
    into = Inputs()
    for at in (1.0, 5.0):
        into.received("k", 0, at, at)
    found = into.latest(3.0)
    assert found is not None
    assert found.received_at == 1.0


def test_long_stream_keeps_its_first_payloads_and_its_last() -> None:
    into = Inputs()
    for n in range(1_000):
        into.sent(f"lost {n}", 0, float(n))
        into.sent(f"k{n}", 0, float(n))
        into.received(f"k{n}", 0, float(n), n + 0.5)
    kept = inputs.MOST_FIRST + inputs.MOST_LAST
    assert len(into) <= 2 * kept
    for at, expected in (
        (1.0, 0.5),
        (inputs.MOST_FIRST + 100.0, inputs.MOST_FIRST - 0.5),
        (998.9, 998.5),
        (2_000.0, 999.5),
    ):
        found = into.latest(at)
        assert found is not None
        assert found.received_at == expected


@given(st.data())
def test_segments_touch_and_span_the_time_whatever_is_known(data: st.DataObject) -> None:
    """Nothing is drawn to make sense: clocks, orders and what is lost are anyhow."""
    moment = st.floats(0.0, 100.0, allow_subnormal=False)
    maybe = st.none() | moment
    request = Request()
    for n in data.draw(st.lists(st.integers(0, 3), unique=True)):
        request.stage(
            n,
            data.draw(moment),
            data.draw(maybe),
            data.draw(maybe),
            diffusion=data.draw(st.booleans()),
        )
    for _ in range(data.draw(st.integers(0, 8))):
        n = data.draw(st.integers(1, 3))
        request.payload(n, data.draw(maybe), data.draw(moment), data.draw(maybe))
    since, until = sorted((data.draw(moment), data.draw(moment)))
    path = critical_path(
        *(since, until, data.draw(st.integers(0, 3)), data.draw(maybe)),
        *(request.stages, request.inputs),
        is_first_output=data.draw(st.booleans()),
    )
    assert sum(part.seconds for part in path) == pytest.approx(until - since, abs=1e-9)
    assert all(part.seconds > 0 for part in path)
    assert all(one.ended_at == other.began_at for one, other in pairwise(path))
    assert {part.segment for part in path} <= set(get_args(Segment))


def test_catalogue_knows_the_segments() -> None:
    known = catalog.BY_STEM["critical_path_seconds_total"].known["segment"]
    assert known == get_args(Segment)


def test_request_tells_both_paths_at_its_end(hooks: Any, recorder: Any, clock: Any) -> None:
    requests = OpenRequests(hooks)
    began = clock.now
    request = requests.begin("r", "r", "tiny", began)
    clock.advance(1.0)
    for stage in (0, 1):
        request.submitting(stage, "delta", makes_audio=stage == 1)
        requests.submitted("r", stage, 0, None)
    requests.started("r", 0, 0, began + 2.0)
    clock.advance(3.0)  # 4
    requests.payload_sent(["r_0", "r"], "r_0_0", 0, 1, began + 3.0)
    requests.input_arrived(["r_0", "r"], "r_0_0", 0, 1, began + 3.25, began + 3.5)
    requests.started("r", 1, 0, began + 4.0)
    clock.advance(1.0)  # 5: an output without sound is none
    requests.stage_output("r", 1)
    request.audio_output([{"audio": [], "sr": 24000}], 1, 0, finished=False)
    clock.advance(1.0)  # 6
    requests.stage_output("r", 1)
    clock.advance(0.5)
    requests.stage_output("r", 1)
    request.audio_output([{"audio": [0.0] * 240, "sr": 24000}], 1, 0, finished=False)
    requests.stage_finished("r", 0, 0, "stop", 1, 1)
    clock.advance(1.0)  # 7.5
    requests.stage_finished("r", 1, 0, "stop", 0, 1)
    clock.advance(0.5)  # 8
    request.complete = request.delivered = True
    request.end(None)

    finished = recorder.only(RequestFinished)
    way = [
        ("frontend", 0, 0.0, 1.0),
        ("queue", 0, 1.0, 2.0),
        ("execute", 0, 2.0, 3.0),
        ("transfer", 1, 3.0, 3.5),
        ("queue", 1, 3.5, 4.0),
    ]
    assert finished.outcome == "stop"
    assert [(s, n, a - began, b - began) for s, n, a, b in rows(finished.first_packet_path)] == [
        *way,
        ("execute", 1, 4.0, 6.0),
        ("delivery", 1, 6.0, 6.5),
    ]
    assert [(s, n, a - began, b - began) for s, n, a, b in rows(finished.critical_path)] == [
        *way,
        ("execute", 1, 4.0, 7.5),
        ("delivery", 1, 7.5, 8.0),
    ]


def test_request_that_was_cut_short_has_only_the_path_to_its_first_packet(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    requests = OpenRequests(hooks)
    request = requests.begin("r", "r", "tiny", clock.now)
    request.submitting(0, "delta", makes_audio=True)
    requests.started("r", 0, 0, clock.now)
    clock.advance(1.0)
    request.audio_output([{"audio": [0.0] * 240, "sr": 24000}], 0, 0, finished=False)
    clock.advance(1.0)
    request.end(GeneratorExit())
    finished = recorder.only(RequestFinished)
    assert finished.critical_path == ()
    assert [part.seconds for part in finished.first_packet_path] == [1.0]


def test_transfer_lasts_from_the_beginning_of_the_put_to_the_end_of_the_get(
    hooks: Any, clock: Any
) -> None:
    state = EngineState(hooks)
    request = state.requests.begin("r", "r", "tiny", clock.now)
    hop: dict[str, Any] = {"from_stage": 0, "to_stage": 1, "key": "r_0_0", "connector": "C"}
    here = {**hop, "size_bytes": 1, "clock": process.clock()}
    for whole in (here, {**here, "key": "r_0_1", "clock": "another host's"}):
        sent: dict[str, Any] = {"from_replica": 0, "duration_seconds": 0.5, "sent_at": 2.0}
        state.take(SentHalf(**whole, **sent))
        got: dict[str, Any] = {"to_replica": 0, "duration_seconds": 0.25, "received_at": 3.0}
        state.take(ReceivedHalf(**whole, **got))
    state.take(FailedHalf(**hop, operation="send", replica=0, reason="refused"))
    assert len(request.paths.inputs[1]) == 1
    payload = request.paths.inputs[1].latest(9.0)
    assert payload is not None
    assert (payload.sent_at, payload.asked_at, payload.received_at) == (1.5, 2.75, 3.0)


def test_payload_of_an_extra_request_belongs_to_its_parent(hooks: Any, clock: Any) -> None:
    requests = OpenRequests(hooks)
    request = requests.begin("r", "r", "tiny", clock.now)
    request.submitting(0, None)
    requests.submitted("r__cfg", 0, 0, "r")
    requests.payload_sent(["r__cfg"], "k", 0, 1, clock.now)
    requests.input_arrived(["nobody"], "k", 0, 1, clock.now, clock.now)
    requests.input_arrived(["r__cfg"], "k", 0, 1, clock.now, clock.now + 1.0)
    payload = request.paths.inputs[1].latest(clock.now + 1.0)
    assert payload is not None
    assert payload.sent_at == clock.now
