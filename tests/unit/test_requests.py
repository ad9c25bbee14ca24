"""What follows from what the engine does to a request: packets, frames, and exactly one end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.open_requests import table_of
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests


def audio(samples: int, rate: int | None = 24000) -> list[dict[str, Any]]:
    """The payloads of one output with so many samples."""
    return [{"audio": np.zeros(samples), "sr": rate}]


@pytest.fixture
def requests(hooks: Any) -> OpenRequests:
    return OpenRequests(hooks)


@pytest.fixture
def request_(requests: OpenRequests, clock: Any) -> OpenRequest:
    """A request that has just arrived."""
    return requests.begin("speech-1", "speech", "tiny", clock.now)


@pytest.fixture
def streamed(requests: OpenRequests, request_: OpenRequest) -> OpenRequest:
    """A request whose stage 1 delivers audio in parts, from replica 3."""
    request_.submitting(1, "delta")
    requests.submitted("speech-1", 1, 3, None)
    return request_


# Arrival and the stages


def test_arrival_carries_both_ids_and_the_time_it_was_given(
    requests: OpenRequests, recorder: Any
) -> None:
    requests.begin("speech-1", "speech", "tiny", 12.5)
    assert recorder.only(RequestArrived) == RequestArrived(
        request_id="speech-1", external_request_id="speech", model_name="tiny", arrived_at=12.5
    )


def test_submit_is_stamped_before_the_stage_has_the_request(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.advance(0.25)
    request_.submitting(0, "final")
    clock.advance(4.0)  # the stage takes it
    requests.submitted("speech-1", 0, 2, None)
    assert recorder.only(StageSubmitted) == StageSubmitted(
        request_id="speech-1",
        stage=0,
        replica=2,
        submitted_at=1000.25,
        model_name="tiny",
        first=True,
    )


def test_stage_generation_runs_from_its_first_submit_to_its_finish(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.advance(8.0)  # it waits, which is not generation
    request_.submitting(0, "final")
    requests.submitted("speech-1", 0, 2, None)
    clock.advance(1.0)
    request_.submitting(0, "final")  # an update of a streamed input is no new beginning
    clock.advance(0.5)
    requests.stage_finished("speech-1", 0, 2, "length", 5, 7)
    assert recorder.only(StageFinished) == StageFinished(
        request_id="speech-1",
        stage=0,
        replica=2,
        finished_at=1009.5,
        generation_seconds=1.5,
        tokens_in=5,
        tokens_out=7,
        finish_reason="length",
        model_name="tiny",
    )


def test_companion_requests_name_their_parent_and_never_arrive_or_end(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    requests.submitted("speech-1__cfg", 0, 1, "speech-1")
    requests.stage_finished("speech-1__cfg", 0, 1, "length", None, None)
    assert recorder.only(StageSubmitted).parent_request_id == "speech-1"
    assert recorder.only(StageSubmitted).submitted_at == clock.now
    assert recorder.only(StageFinished).generation_seconds is None
    assert recorder.of(RequestArrived) == []
    request_.delivered = True
    request_.end(None)
    assert recorder.only(RequestFinished).request_id == "speech-1"
    assert recorder.only(RequestFinished).outcome == "stop", "its companion's end is not its own"


def test_queue_time_ends_at_the_earliest_start_in_any_stage(
    requests: OpenRequests, request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    request_.submitting(0, None)  # no replica took it
    for stage in (2, 1):
        request_.submitting(stage, None)
        requests.submitted("speech-1", stage, 0, None)
    clock.advance(0.75)
    requests.started("speech-1", 2, 0, clock.now)
    requests.started("speech-1", 1, 0, clock.now - 0.25)  # its report took longer
    clock.advance(0.25)
    request_.end(None)
    finished = recorder.only(RequestFinished)
    assert (finished.queue_seconds, finished.end_to_end_seconds) == (0.5, 1.0)
    assert finished.started


def test_request_that_no_stage_got_has_no_queue_time(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    request_.submitting(0, None)
    clock.advance(2.0)
    request_.end(RuntimeError("no replica"))
    finished = recorder.only(RequestFinished)
    assert (finished.queue_seconds, finished.end_to_end_seconds) == (None, 2.0)
    assert not finished.started


# Audio


def test_parts_are_counted_as_they_leave(streamed: OpenRequest, recorder: Any, clock: Any) -> None:
    clock.advance(0.125)
    for index, samples in enumerate((1920, 7680, 480)):
        clock.advance(0.125)
        streamed.audio_output(audio(samples), 1, 3, finished=index == 2)
    packets = recorder.of(MediaPacket)
    assert [packet.samples for packet in packets] == [1920, 7680, 480]
    assert [packet.index for packet in packets] == [0, 1, 2]
    assert [packet.since_arrival_seconds for packet in packets] == [0.25, 0.375, 0.5]
    assert [packet.left_at for packet in packets] == [1000.25, 1000.375, 1000.5]
    assert all(packet.streamed and packet.modality == "audio" for packet in packets)
    assert {(packet.stage, packet.replica, packet.sample_rate) for packet in packets} == {
        (1, 3, 24000)
    }


def test_cumulative_outputs_count_only_what_is_new(
    request_: OpenRequest, requests: OpenRequests, recorder: Any
) -> None:
    request_.submitting(1, "cumulative")
    for samples in (480, 480, 1000, 1500, 1500):
        request_.audio_output(audio(samples), 1, 0, finished=False)
    request_.end(None)
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [480, 520, 500]
    assert [packet.index for packet in recorder.of(MediaPacket)] == [0, 1, 2]


def test_whole_output_is_one_packet_that_nobody_streamed(
    request_: OpenRequest, recorder: Any
) -> None:
    request_.submitting(1, "final")
    request_.audio_output(audio(9600), 1, 0, finished=True)
    packet = recorder.only(MediaPacket)
    assert (packet.samples, packet.index, packet.streamed) == (9600, 0, False)


@pytest.mark.parametrize(("finished", "streamed"), [(True, False), (False, True)])
def test_stage_without_delivery_mode_streams_if_it_sends_parts(
    request_: OpenRequest, recorder: Any, finished: bool, streamed: bool
) -> None:
    request_.audio_output(audio(480), 0, 0, finished=finished)
    request_.audio_output(audio(480), 0, 0, finished=True)
    assert [packet.streamed for packet in recorder.of(MediaPacket)] == [streamed, streamed]


def test_several_payloads_of_one_output_are_one_packet(
    streamed: OpenRequest, recorder: Any
) -> None:
    streamed.audio_output(audio(480) + audio(20), 1, 3, finished=False)
    assert recorder.only(MediaPacket).samples == 500


def test_empty_output_is_no_packet(streamed: OpenRequest, recorder: Any, clock: Any) -> None:
    clock.advance(1.0)
    streamed.audio_output([], 1, 3, finished=False)
    streamed.audio_output(audio(0), 1, 3, finished=False)
    assert recorder.of(MediaPacket) == []
    clock.advance(1.0)
    streamed.audio_output(audio(480), 1, 3, finished=False)
    streamed.audio_output(audio(0), 1, 3, finished=True)
    streamed.delivered = True
    streamed.end(None)
    assert recorder.only(MediaPacket).index == 0
    assert recorder.only(AudioFinished).first_packet_seconds == 2.0


@pytest.mark.parametrize(
    ("delivery", "first_packet_seconds"), [("delta", 0.5), ("cumulative", 0.5), ("final", None)]
)
def test_first_packet_is_timed_once_and_only_if_streamed(
    request_: OpenRequest,
    recorder: Any,
    clock: Any,
    delivery: Any,
    first_packet_seconds: float | None,
) -> None:
    request_.submitting(1, delivery)
    for total in (100, 200, 300):
        clock.advance(0.5)
        request_.audio_output(audio(total), 1, 0, finished=total == 300)
    request_.delivered = True
    request_.end(None)
    assert recorder.only(AudioFinished).first_packet_seconds == first_packet_seconds
    assert [packet.index for packet in recorder.of(MediaPacket)] == [0, 1, 2]


def test_sample_rate_may_come_with_a_later_packet(streamed: OpenRequest, recorder: Any) -> None:
    streamed.audio_output(audio(8000, rate=None), 1, 3, finished=False)
    streamed.audio_output(audio(8000, rate=16000), 1, 3, finished=False)
    streamed.audio_output(audio(8000, rate=None), 1, 3, finished=True)
    streamed.delivered = True
    streamed.end(None)
    assert [packet.sample_rate for packet in recorder.of(MediaPacket)] == [None, 16000, 16000]
    audio_finished = recorder.only(AudioFinished)
    assert (audio_finished.samples, audio_finished.sample_rate) == (24000, 16000)
    assert audio_finished.duration_seconds == 1.5


def test_sample_rate_may_come_with_an_output_that_has_no_audio(
    streamed: OpenRequest, recorder: Any
) -> None:
    streamed.audio_output([{"audio": None, "sr": 16000}], 1, 3, finished=False)
    streamed.audio_output(audio(8000, rate=None), 1, 3, finished=True)
    assert recorder.only(MediaPacket).sample_rate == 16000


def test_audio_without_a_sample_rate_has_no_duration(streamed: OpenRequest, recorder: Any) -> None:
    streamed.audio_output(audio(8000, rate=None), 1, 3, finished=True)
    streamed.delivered = True
    streamed.end(None)
    audio_finished = recorder.only(AudioFinished)
    assert audio_finished.samples == 8000
    assert (audio_finished.sample_rate, audio_finished.duration_seconds) == (None, None)


def test_audio_stage_that_said_nothing_finishes_with_no_frames(
    streamed: OpenRequest, recorder: Any
) -> None:
    streamed.audio_output(audio(0), 1, 3, finished=True)
    streamed.delivered = True
    streamed.end(None)
    audio_finished = recorder.only(AudioFinished)
    assert (audio_finished.samples, audio_finished.duration_seconds) == (0, None)
    assert audio_finished.first_packet_seconds is None
    assert audio_finished.streamed


@pytest.mark.parametrize(("stated", "replica"), [(1, 1), (0, 0), (None, 3)])
def test_replica_is_the_outputs_own_else_the_submits(
    streamed: OpenRequest, recorder: Any, stated: int | None, replica: int
) -> None:
    streamed.audio_output(audio(480), 1, stated, finished=True)
    streamed.delivered = True
    streamed.end(None)
    assert recorder.only(MediaPacket).replica == replica
    assert recorder.only(AudioFinished).replica == replica


def test_replica_that_nobody_knows_stays_unknown(request_: OpenRequest, recorder: Any) -> None:
    request_.audio_output(audio(480), 1, None, finished=True)
    request_.delivered = True
    request_.end(None)
    assert recorder.only(MediaPacket).replica is None
    assert recorder.only(AudioFinished).replica is None


def test_audio_finishes_with_its_stages_generation_time(
    requests: OpenRequests, streamed: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.advance(0.5)
    streamed.audio_output(audio(24000), 1, 3, finished=True)
    clock.advance(0.25)
    requests.stage_finished("speech-1", 1, 3, "stop", 0, 0)
    streamed.delivered = True
    streamed.end(None)
    assert recorder.only(AudioFinished).generation_seconds == 0.75
    assert recorder.events.index(recorder.only(AudioFinished)) < recorder.events.index(
        recorder.only(RequestFinished)
    )


def test_each_audio_stage_of_a_request_finishes_by_itself(
    request_: OpenRequest, recorder: Any
) -> None:
    request_.submitting(1, "delta")
    request_.submitting(2, "delta")
    request_.audio_output(audio(100), 1, 0, finished=False)
    request_.audio_output(audio(7), 2, 1, finished=False)
    request_.audio_output(audio(200), 1, 0, finished=True)
    request_.delivered = True
    request_.end(None)
    assert {(done.stage, done.replica): done.samples for done in recorder.of(AudioFinished)} == {
        (1, 0): 300,
        (2, 1): 7,
    }
    assert [packet.index for packet in recorder.of(MediaPacket)] == [0, 1, 2]


# The end

ABORTS = [GeneratorExit(), asyncio.CancelledError()]


def end(request: OpenRequest, error: BaseException | None) -> None:
    request.end(error)
    assert table_of(request).by_id == {}, "nothing is kept of a request that ended"


@pytest.mark.parametrize("error", ABORTS, ids=repr)
def test_listener_who_hangs_up_is_counted_once_as_abort(
    streamed: OpenRequest, recorder: Any, error: BaseException
) -> None:
    streamed.delivered = True
    streamed.audio_output(audio(480), 1, 3, finished=False)
    end(streamed, error)
    end(streamed, error)
    assert recorder.only(RequestFinished).outcome == "abort"
    assert recorder.of(AudioFinished) == [], "its audio was cut short"


@pytest.mark.parametrize("error", ABORTS, ids=repr)
def test_listener_who_leaves_after_the_last_output_got_everything(
    requests: OpenRequests, streamed: OpenRequest, recorder: Any, error: BaseException
) -> None:
    streamed.delivered = True
    streamed.audio_output(audio(480), 1, 3, finished=True)
    requests.stage_finished("speech-1", 1, 3, "length", 0, 0)
    streamed.complete = True
    end(streamed, error)
    assert recorder.only(RequestFinished).outcome == "length"
    assert recorder.only(AudioFinished).samples == 480


@pytest.mark.parametrize("delivered", [False, True])
def test_exception_is_an_error_even_after_the_last_output(
    streamed: OpenRequest, recorder: Any, delivered: bool
) -> None:
    streamed.delivered = streamed.complete = delivered
    streamed.audio_output(audio(480), 1, 3, finished=False)
    end(streamed, RuntimeError("stage died"))
    assert recorder.only(RequestFinished).outcome == "error"
    assert recorder.of(AudioFinished) == []


def test_end_without_a_single_output_is_an_error(request_: OpenRequest, recorder: Any) -> None:
    end(request_, None)
    assert recorder.only(RequestFinished).outcome == "error"


@pytest.mark.parametrize(
    ("stage_reasons", "stated", "outcome"),
    [
        ([], set(), "stop"),
        ([None], set(), "stop"),
        (["stop", "stop"], {"stop"}, "stop"),
        # The vocoder always says stop; the talker's limit is what cut the sentence short.
        (["length", "stop"], {"stop"}, "length"),
        (["stop", None], {"length"}, "length"),
        (["length", "abort"], {"stop"}, "abort"),
        (["stop"], {"abort"}, "abort"),
        (["abort", "error", "length"], {"stop"}, "error"),
        (["stop", "repetition"], {"stop"}, "repetition"),
        (["repetition", "length"], {"stop"}, "length"),
        (["zebra", "ape"], {"stop"}, "ape"),
        ([""], set(), "stop"),
    ],
)
def test_worst_finish_reason_of_all_stages_is_the_outcome(
    requests: OpenRequests,
    request_: OpenRequest,
    recorder: Any,
    stage_reasons: list[str | None],
    stated: set[str],
    outcome: str,
) -> None:
    for stage, reason in enumerate(stage_reasons):
        request_.submitting(stage, None)
        requests.stage_finished("speech-1", stage, 0, reason, None, None)
    request_.delivered = True
    request_.finish_reasons |= stated
    end(request_, None)
    assert recorder.only(RequestFinished).outcome == outcome


@pytest.mark.parametrize("cut_short", ["abort", "error"])
def test_audio_that_the_engine_itself_cut_short_is_not_finished(
    requests: OpenRequests, streamed: OpenRequest, recorder: Any, cut_short: str
) -> None:
    streamed.delivered = True
    streamed.audio_output(audio(480), 1, 3, finished=True)
    streamed.finish_reasons.add(cut_short)
    end(streamed, None)
    assert recorder.only(RequestFinished).outcome == cut_short
    assert recorder.of(AudioFinished) == []


def test_events_after_the_end_are_harmless(
    requests: OpenRequests, streamed: OpenRequest, recorder: Any
) -> None:
    streamed.delivered = True
    streamed.end(None)
    recorder.clear()
    streamed.submitting(2, "delta")
    requests.submitted("speech-1", 2, 0, None)
    requests.stage_finished("speech-1", 2, 0, "abort", None, None)
    streamed.end(GeneratorExit())
    assert recorder.of(RequestFinished) == []
    assert recorder.only(StageFinished).generation_seconds is None
    assert requests.by_id == {}


def test_requests_without_listeners_are_kept_and_forgotten_all_the_same(
    requests: OpenRequests, clock: Any
) -> None:
    request = requests.begin("speech-1", "speech", "tiny", clock.now)
    assert requests.by_id == {"speech-1": request}
    request.submitting(0, "delta")
    requests.submitted("speech-1", 0, 0, None)
    request.audio_output(audio(480), 0, 0, finished=True)
    requests.stage_finished("speech-1", 0, 0, "stop", None, None)
    end(request, None)


ERRORS = [None, GeneratorExit(), asyncio.CancelledError(), RuntimeError(), ValueError()]
STAGES = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("begin")),
    st.tuples(
        st.just("submitting"), STAGES, st.sampled_from(["delta", "cumulative", "final", None])
    ),
    st.tuples(st.just("submitted"), STAGES),
    st.tuples(st.just("stage_finished"), STAGES, st.sampled_from(["stop", "length", "abort"])),
    st.tuples(st.just("audio"), STAGES, st.integers(0, 50)),
    st.tuples(st.just("end"), st.sampled_from(ERRORS)),
)


class Account:
    """The naive account of one request, kept beside the real one."""

    def __init__(self, request: OpenRequest) -> None:
        self.request = request
        self.delivery: dict[int, str | None] = {}
        self.frames: Counter[int] = Counter()
        self.ended = False

    def submitting(self, stage: int, delivery: Any) -> None:
        if stage not in self.frames:  # a stage is submitted before it delivers
            self.delivery.setdefault(stage, delivery)
            self.request.submitting(stage, delivery)

    def audio(self, stage: int, part: int) -> None:
        if self.ended:  # the generator that would deliver it is closed
            return
        repeated = self.frames[stage] if self.delivery.get(stage) == "cumulative" else 0
        self.frames[stage] += part
        self.request.delivered = True
        self.request.audio_output(audio(repeated + part), stage, 0, finished=False)

    def end(self, error: BaseException | None) -> None:
        self.request.end(error)
        self.ended = True


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), STEPS), max_size=60))
def test_any_interleaving_ends_each_request_once_with_every_frame_counted(
    hooks: Any, recorder: Any, steps: list[tuple[str, tuple[Any, ...]]]
) -> None:
    recorder.clear()
    requests = OpenRequests(hooks)
    accounts: dict[str, Account] = {}
    for name, (kind, *details) in steps:
        if kind == "begin":
            if name not in accounts:
                accounts[name] = Account(requests.begin(name, "the same for all", "tiny", 0.0))
        elif kind == "submitted":
            requests.submitted(name, details[0], 0, None)
        elif kind == "stage_finished":
            requests.stage_finished(name, details[0], 0, details[1], None, None)
        elif name in accounts:
            getattr(accounts[name], kind)(*details)
    for account in accounts.values():
        account.end(None)

    assert requests.by_id == {}
    assert sorted(event.request_id for event in recorder.of(RequestArrived)) == sorted(accounts)
    assert sorted(event.request_id for event in recorder.of(RequestFinished)) == sorted(accounts)
    for name, account in accounts.items():
        packets = [event for event in recorder.of(MediaPacket) if event.request_id == name]
        assert [packet.index for packet in packets] == list(range(len(packets)))
        frames: Counter[int] = Counter()
        for packet in packets:
            assert packet.samples
            frames[packet.stage] += packet.samples
        assert frames == +account.frames, f"packets of {name}: {packets}"
        for done in (event for event in recorder.of(AudioFinished) if event.request_id == name):
            assert done.samples == account.frames[done.stage]
