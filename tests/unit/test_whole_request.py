"""The event of a request's end: all that happened to it, as the events before it said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.feed import WORK
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    HookRegistry,
    ImageFinished,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSummary,
    StreamFinished,
    VideoFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.requests import Exchange, OpenRequest, OpenRequests, StreamedInput
from vllm_omni_metrics_plugin.requests.client import Client
from vllm_omni_metrics_plugin.requests.encoding import encoding
from vllm_omni_metrics_plugin.testing import Recorder

TALKER, VOCODER = 0, 1


def sound(samples: int = 24_000) -> list[dict[str, Any]]:
    return [{"audio": SimpleNamespace(shape=(samples,)), "sr": 24_000}]


@pytest.fixture
def requests(hooks: Any, recorder: Recorder, clock: Any) -> OpenRequests:
    assert recorder.events == [], "somebody listens before it begins"
    return OpenRequests(hooks)


@pytest.fixture
def request_(requests: OpenRequests, clock: Any) -> OpenRequest:
    """For streamed speech; it has waited for 1 s, both stages have it."""
    request = requests.begin(
        "a-1", "a", "tiny", clock.now, client=Client("/v1/audio/speech", "http")
    )
    clock.advance(1.0)
    for stage in (TALKER, VOCODER):
        request.submitting(stage, "delta", makes_audio=stage == VOCODER)
        requests.submitted("a-1", stage, 2 + stage, None)
    return request


def speak(requests: OpenRequests, request: OpenRequest, clock: Any) -> None:
    """Both stages start and make a second of sound in two packets, and finish."""
    clock.advance(0.25)
    requests.started("a-1", TALKER, 2, clock.now)
    clock.advance(0.5)
    requests.input_arrived(["a-1"], "key", TALKER, VOCODER, clock.now, clock.now)
    clock.advance(0.125)
    requests.started("a-1", VOCODER, 3, clock.now)
    for finished in (False, True):
        clock.advance(0.25)
        request.delivered = True
        request.audio_output(sound(12_000), VOCODER, 3, finished=finished)
    requests.stage_finished("a-1", TALKER, 2, "length", 5, 7)
    clock.advance(1.0)
    requests.stage_finished("a-1", VOCODER, 3, "stop", 0, 9)


def answer(request: OpenRequest, status: int = 200) -> Exchange:
    exchange = Exchange("http")
    request.answers(exchange)
    exchange.status = status
    return exchange


def test_whole_request_is_what_its_events_said(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any
) -> None:
    exchange = answer(request_)
    speak(requests, request_, clock)
    request_.end(None)
    exchange.completes()
    exchange.ends()

    whole = recorder.only(RequestFinished)
    assert recorder.events[-1] is whole
    arrived = recorder.only(RequestArrived)
    for field in ("external_request_id", "endpoint", "transport", "arrived_at"):
        assert getattr(whole, field) == getattr(arrived, field), field
    assert (whole.external_request_id, whole.endpoint, whole.transport, whole.status) == (
        *("a", "/v1/audio/speech", "http"),
        200,
    )
    assert whole.packets == 2
    assert whole.audio == tuple(recorder.of(AudioFinished)) != ()
    assert whole.audio[0].rtf == pytest.approx(2.375)
    assert whole.streams == tuple(recorder.of(StreamFinished)) != ()
    assert (whole.images, whole.videos, whole.verdicts) == ((), (), ())


def test_stages_say_how_they_waited_and_executed_and_what_they_finished(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any
) -> None:
    speak(requests, request_, clock)
    request_.end(None)
    talker, vocoder = recorder.only(RequestFinished).stages
    assert talker == StageSummary(
        stage=TALKER,
        replica=2,
        submitted_at=1001.0,
        started_at=1001.25,
        ended_at=1002.375,
        queue_seconds=0.25,
        execute_seconds=1.125,
        generation_seconds=1.375,
        tokens_in=5,
        tokens_out=7,
        finish_reason="length",
    )
    assert vocoder.queue_seconds == 0.125, "it had nothing to execute before its first payload"
    assert vocoder.execute_seconds == 1.5
    assert (vocoder.replica, vocoder.tokens_out, vocoder.finish_reason) == (3, 9, "stop")
    for stage, finished in zip((talker, vocoder), recorder.of(StageFinished), strict=True):
        for field in ("generation_seconds", "tokens_in", "tokens_out", "finish_reason"):
            assert getattr(stage, field) == getattr(finished, field)


@pytest.mark.parametrize("fetched", [0.125, 0.5])
def test_diffusion_stage_does_not_wait_for_its_payload(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any, fetched: float
) -> None:
    at = clock.now + fetched
    requests.input_arrived(["a-1"], "key", TALKER, VOCODER, at, at)
    requests.started("a-1", VOCODER, 3, clock.now + 0.25, tells_end=True)
    request_.delivered = True
    requests.stage_finished("a-1", VOCODER, 3, "stop", None, None, WORK)
    request_.end(None)
    stage = recorder.only(RequestFinished).stages[VOCODER]
    assert stage.queue_seconds == 0.25
    assert stage.diffusion is WORK


def test_what_is_not_known_of_a_stage_is_none(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any
) -> None:
    requests.started("a-1", TALKER, 2, None)
    request_.submitting(5, None)  # no replica took it
    request_.end(GeneratorExit())
    whole = recorder.only(RequestFinished)
    assert [(stage.stage, stage.replica) for stage in whole.stages] == [(0, 2), (1, 3), (5, None)]
    for stage in whole.stages:
        assert stage.started_at is stage.queue_seconds is stage.execute_seconds is None
        assert stage.tokens_in is stage.tokens_out is stage.generation_seconds is None
        assert (stage.finish_reason, stage.diffusion) == (None, None)


def test_execution_that_goes_on_after_the_end_has_no_time_yet(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any
) -> None:
    requests.started("a-1", VOCODER, 3, clock.now, tells_end=True)
    request_.end(GeneratorExit())
    stage = recorder.only(RequestFinished).stages[VOCODER]
    assert stage.started_at == clock.now
    assert stage.ended_at is stage.execute_seconds is None


def test_tokens_of_an_input_in_pieces_are_not_known(
    requests: OpenRequests, recorder: Recorder, clock: Any
) -> None:
    streamed = StreamedInput()
    request = requests.begin("a-1", "a", "tiny", clock.now, streamed)
    request.submitting(TALKER, "delta")
    requests.submitted("a-1", TALKER, 2, None)
    requests.segment_finished("a-1", TALKER, "stop")
    requests.stage_finished("a-1", TALKER, 2, "stop", 5, 7)
    request.end(None)
    [stage] = recorder.only(RequestFinished).stages
    assert stage.tokens_in is stage.tokens_out is None
    assert stage.finish_reason == "stop"


@pytest.mark.parametrize("outcome", ["abort", "error", "rejected"])
def test_request_that_was_cut_short_has_what_was_heard_and_no_media(
    requests: OpenRequests, request_: OpenRequest, recorder: Recorder, clock: Any, outcome: str
) -> None:
    exchange = answer(request_, 400 if outcome == "rejected" else 200)
    request_.audio_output(sound(), VOCODER, 3, finished=False)
    if outcome == "abort":
        exchange.leaves()
    request_.end(GeneratorExit() if outcome == "abort" else ValueError("no"))
    exchange.ends()
    whole = recorder.only(RequestFinished)
    assert (whole.outcome, whole.packets) == (outcome, 1)
    assert (whole.audio, whole.images, whole.videos) == ((), (), ())
    assert [stream.request_id for stream in whole.streams] == ["a-1"]
    assert whole.status == (400 if outcome == "rejected" else 200)


def test_request_of_a_script_has_no_endpoint_and_an_unknown_arrival_is_none(
    requests: OpenRequests, recorder: Recorder, clock: Any
) -> None:
    requests.begin("a-1", "a", "tiny", None).end(None)
    whole = recorder.only(RequestFinished)
    assert (whole.endpoint, whole.transport, whole.status) == (None, None, None)
    assert whole.arrived_at is None
    assert (whole.packets, whole.stages, whole.streams) == (0, (), ())


def test_images_and_videos_are_those_that_were_told(
    requests: OpenRequests, recorder: Recorder, clock: Any
) -> None:
    request = requests.begin("a-1", "a", "tiny", clock.now)
    request.delivered = True
    for stage, is_video in ((0, False), (1, True)):
        request.visual_output(
            [SimpleNamespace(size=(64, 32))] if not is_video else b"",
            {"fps": 8.0},
            stage,
            4,
            is_video=is_video,
            frames_in_file=lambda _: 16,
        )
    request.end(None)
    whole = recorder.only(RequestFinished)
    assert whole.images == tuple(recorder.of(ImageFinished)) != ()
    assert whole.videos == tuple(recorder.of(VideoFinished)) != ()
    assert [image.pixels for image in whole.images] == [(2048,)]


@pytest.mark.parametrize("in_time", [True, False])
def test_video_whose_rate_is_said_after_the_end_is_told_alone(
    requests: OpenRequests, recorder: Recorder, clock: Any, in_time: bool
) -> None:
    with encoding() as endpoint:
        request = requests.begin("a-1", "a", "tiny", clock.now)
        request.delivered = True
        request.visual_output(b"", {}, 0, 4, is_video=None, frames_in_file=lambda _: 16)
        if in_time:
            endpoint.encodes_at(8.0)
        request.end(None)
    told = len(recorder.only(RequestFinished).videos)
    endpoint.encodes_at(8.0) if not in_time else None
    assert told == in_time
    assert recorder.only(VideoFinished).duration_seconds == 2.0


class Ends:
    """Listens to the end of requests alone."""

    def __init__(self) -> None:
        self.events: list[RequestFinished] = []

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        self.events.append(event)


def test_whole_request_is_there_for_whoever_listens_to_nothing_else(
    registry: HookRegistry, clock: Any
) -> None:
    ends = Ends()
    registry.register(ends)
    requests = OpenRequests(registry.hooks)
    request = requests.begin("a-1", "a", "tiny", clock.now)
    for stage in (TALKER, VOCODER):
        request.submitting(stage, "delta", makes_audio=stage == VOCODER)
        requests.submitted("a-1", stage, 2 + stage, None)
    speak(requests, request, clock)
    request.visual_output(
        [SimpleNamespace(size=(64, 32))], {}, 4, 0, is_video=False, frames_in_file=lambda _: None
    )
    request.end(None)
    [whole] = ends.events
    assert [len(part) for part in (whole.stages, whole.audio, whole.streams, whole.images)] == [
        *(2, 1, 1),
        1,
    ]


def test_nothing_is_made_for_nobody(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("made for nobody")

    requests = OpenRequests(HookRegistry().hooks)
    request = requests.begin("a-1", "a", "tiny", clock.now)
    request.submitting(VOCODER, "delta", makes_audio=True)
    request.audio_output(sound(), VOCODER, 3, finished=True)
    for name in ("RequestFinished",):
        monkeypatch.setattr(f"vllm_omni_metrics_plugin.requests.request.{name}", made)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.work.StageSummary", made)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.audio.AudioFinished", made)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.stream.StreamFinished", made)
    request.delivered = True
    request.end(None)
    assert requests.by_id == {}
