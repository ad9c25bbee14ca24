"""When the stages begin and end to execute a request: once each, whatever is late or lost."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import RequestFinished, StageEnded, StageStarted
from vllm_omni_metrics_plugin.requests import executions
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests


@pytest.fixture
def requests(hooks: Any) -> OpenRequests:
    return OpenRequests(hooks)


@pytest.fixture
def request_(requests: OpenRequests, clock: Any) -> OpenRequest:
    """A request that replica 2 of stage 0 was given at second 1000, and nobody else yet."""
    request = requests.begin("a", "a", "tiny", clock.now)
    request.submitting(0, None)
    requests.submitted("a", 0, 2, None)
    return request


def finish(requests: OpenRequests, request_id: str = "a", stage: int = 0) -> None:
    requests.stage_finished(request_id, stage, 2, "stop", 1, 1)


def leave(request: OpenRequest) -> None:
    """Its client is gone."""
    request.end(GeneratorExit())


def test_start_carries_what_the_request_waited_for(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.input_arrived(["another", "a"], "a_0_0", 0, 0, 1000.0, 1000.25)
    requests.input_arrived(["a"], "a_0_1", 0, 0, 1000.5, 1000.5)
    requests.started("a", 0, 7, 1001.0)
    assert recorder.only(StageStarted) == StageStarted(
        request_id="a",
        stage=0,
        replica=2,
        started_at=1001.0,
        submitted_at=1000.0,
        input_at=1000.25,
        model_name="tiny",
    )


def test_stage_starts_and_ends_once_however_often_it_is_told(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    for at in (1001.0, 1002.0):
        requests.started("a", 0, None, at, tells_end=True)
    for at in (1003.0, 1004.0):
        requests.ended("a", 0, at)
    clock.advance(5.0)
    finish(requests)
    requests.started("a", 0, None, 1006.0)
    leave(request_)
    assert recorder.only(StageStarted).started_at == 1001.0
    assert recorder.only(StageEnded) == StageEnded(
        request_id="a", stage=0, replica=2, ended_at=1003.0, started_at=1001.0, model_name="tiny"
    )


def test_end_in_a_stage_is_its_last_output_where_the_scheduler_tells_none(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    requests.started("a", 0, None, 1001.0)
    clock.advance(3.0)
    finish(requests)
    assert recorder.only(StageEnded).ended_at == 1003.0


def test_scheduler_that_is_faster_than_the_submit_waits_for_the_replica(
    requests: OpenRequests, recorder: Any, clock: Any
) -> None:
    request = requests.begin("a", "a", "tiny", clock.now)
    request.submitting(0, None)
    requests.started("a", 0, None, 1000.5)
    assert recorder.of(StageStarted) == []
    requests.submitted("a", 0, 4, None)
    assert recorder.only(StageStarted).replica == 4


def test_second_submit_of_streamed_input_is_no_second_start(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.started("a", 0, None, 1001.0)
    request_.submitting(0, None)
    requests.submitted("a", 0, 2, None)
    requests.started("a", 0, None, 1002.0)
    assert recorder.only(StageStarted).started_at == 1001.0


def test_ids_that_nobody_submitted_are_nobodys(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.started("dummy_req_id", 0, 0, 1001.0, tells_end=True)
    requests.ended("dummy_req_id", 0, 1002.0)
    requests.started("a", 3, 0, 1001.0)
    assert recorder.of(StageStarted) == recorder.of(StageEnded) == []


def test_companion_starts_by_its_own_id_and_names_its_parent(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.submitted("a__cfg", 0, 1, "a")
    requests.started("a__cfg", 0, None, 1001.0)
    started = recorder.only(StageStarted)
    assert (started.request_id, started.parent_request_id) == ("a__cfg", "a")
    assert (started.model_name, started.replica, started.submitted_at) == ("tiny", 1, None)


def test_start_that_comes_after_the_finish_is_told_with_its_end(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.advance(2.0)
    finish(requests)
    request_.delivered = request_.complete = True
    request_.end(None)
    assert recorder.of(StageStarted) == recorder.of(StageEnded) == []
    assert recorder.only(RequestFinished).started, "its finish proves it"
    requests.started("a", 0, None, 1001.0)
    assert recorder.only(StageStarted).started_at == 1001.0
    assert recorder.only(StageEnded).ended_at == 1002.0
    assert len(requests.executions) == 0


def test_start_that_never_comes_is_told_without_a_time(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    finish(requests)
    clock.advance(0.99 * executions.LATE_SECONDS)
    requests.executions.forget_outdated()
    assert recorder.of(StageStarted) == []
    clock.advance(0.01 * executions.LATE_SECONDS)
    requests.executions.forget_outdated()
    assert recorder.only(StageStarted).started_at is None
    assert recorder.only(StageEnded).started_at is None
    requests.started("a", 0, None, 1000.5)
    assert len(recorder.of(StageStarted)) == 1


@pytest.mark.parametrize("gave_output", [False, True])
def test_stage_that_was_told_that_there_is_nothing_to_do_starts_at_its_end(
    requests: OpenRequests,
    request_: OpenRequest,
    recorder: Any,
    clock: Any,
    gave_output: bool,
) -> None:
    requests.input_arrived(["a"], "a_0_0", 0, 0, 1000.5, 1000.5)
    clock.advance(1.0)
    finish(requests)
    samples = [0.0] if gave_output else []
    request_.audio_output([{"audio": samples, "sr": 24000}], 0, 2, finished=True)
    clock.advance(executions.LATE_SECONDS)
    requests.executions.forget_outdated()
    started, ended = recorder.only(StageStarted), recorder.only(StageEnded)
    assert started.started_at == (None if gave_output else 1001.0)
    assert ended.ended_at == 1001.0


def test_end_that_a_scheduler_tells_proves_that_it_started(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.ended("a", 0, 1002.0)
    assert recorder.only(StageStarted).started_at is None
    assert recorder.only(StageEnded).ended_at == 1002.0


def test_stage_ends_with_a_request_that_is_cut_short(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    requests.started("a", 0, None, 1001.0)
    clock.advance(4.0)
    leave(request_)
    assert recorder.only(StageEnded).ended_at == 1004.0
    assert isinstance(recorder.events[-1], RequestFinished)


def test_request_that_leaves_while_it_waits_never_starts(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    leave(request_)
    requests.started("a", 0, None, 1001.0)
    assert recorder.of(StageStarted) == recorder.of(StageEnded) == []
    assert not recorder.only(RequestFinished).started


def test_engine_that_goes_on_with_an_aborted_request_says_when_it_is_done(
    requests: OpenRequests, request_: OpenRequest, recorder: Any
) -> None:
    requests.started("a", 0, None, 1001.0, tells_end=True)
    leave(request_)
    assert recorder.of(StageEnded) == []
    requests.ended("a", 0, 1009.0)
    assert recorder.only(StageEnded).ended_at == 1009.0
    assert len(requests.executions) == 0


@pytest.mark.parametrize(("others", "ends"), [(None, 0), (1, 0), (0, 1)])
def test_next_start_ends_what_the_scheduler_cannot_be_executing_any_more(
    requests: OpenRequests,
    request_: OpenRequest,
    recorder: Any,
    others: int | None,
    ends: int,
) -> None:
    requests.started("a", 0, None, 1001.0, tells_end=True)
    leave(request_)
    requests.begin("b", "b", "tiny", 1000.0).submitting(0, None)
    requests.submitted("b", 0, 2, None)
    requests.started("b", 0, None, 1005.0, tells_end=True, others=others)
    assert [event.request_id for event in recorder.of(StageEnded)] == ["a"] * ends


@pytest.mark.parametrize("how", ["time", "replica"])
def test_end_that_never_comes_is_given_up(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any, how: str
) -> None:
    requests.started("a", 0, None, 1001.0, tells_end=True)
    leave(request_)
    requests.executions.replica_left("tiny", 0, 3)
    assert recorder.of(StageEnded) == []
    if how == "replica":
        requests.executions.replica_left("tiny", 0, 2)
    else:
        clock.advance(executions.LONGEST_SECONDS)
        requests.executions.forget_outdated()
    assert recorder.only(StageEnded).request_id == "a"
    assert len(requests.executions) == 0


def test_what_is_waited_for_is_bounded(requests: OpenRequests, recorder: Any, clock: Any) -> None:
    for number in range(executions.MOST_WAITING + 50):
        for kind in ("late", "aborted"):
            name = f"{kind}{number}"
            request = requests.begin(name, name, "tiny", clock.now)
            request.submitting(0, None)
            requests.submitted(name, 0, 2, None)
            if kind == "late":
                finish(requests, name)
            else:
                requests.started(name, 0, None, clock.now, tells_end=True)
            leave(request)
    requests.executions.forget_outdated()
    assert len(requests.executions) == 2 * executions.MOST_WAITING
    assert len(recorder.of(StageEnded)) == 2 * 50
