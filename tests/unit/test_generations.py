"""From outputs to the events of their end, without an engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.open_requests import table_of
from vllm_omni_metrics_plugin.hooks import (
    DiffusionWork,
    ImageFinished,
    RequestFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.patches.diffusion.video_endpoint import wrap_run_and_extract
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.requests.encoding import encoding

WORK = DiffusionWork(steps=4, exec_seconds=1.0)


class Tensor:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


@pytest.fixture
def request_(clock: Any, hooks: Any) -> OpenRequest:
    return OpenRequests(hooks).begin("a", "a", "tiny", clock.now)


def deliver(request: OpenRequest, content: Any, **more: Any) -> None:
    payload = more.pop("payload", {})
    kwargs: dict[str, Any] = {"is_video": False, "frames_in_file": len, **more}
    replica = kwargs.pop("replica", 1)
    request.delivered = True
    request.visual_output(content, payload, 0, replica, **kwargs)


def generate(request: OpenRequest, clock: Any, seconds: float = 2.0) -> None:
    """The stage's work, from submit to finish."""
    request.submitting(0, None)
    table_of(request).submitted("a", 0, 1, None)
    clock.advance(seconds)
    table_of(request).stage_finished("a", 0, 1, None, 0, 0, WORK)


def test_images_of_a_request_are_told_at_its_end_with_all_that_is_known(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    clock.advance(1.0)
    generate(request_, clock)
    deliver(request_, [Tensor(64, 32, 3), Tensor(3, 8, 8)])
    clock.advance(5.0)
    assert recorder.of(ImageFinished) == []
    request_.end(None)
    assert recorder.only(ImageFinished) == ImageFinished(
        request_id="a",
        model_name="tiny",
        stage=0,
        replica=1,
        images=2,
        pixels=(2048, 64),
        unknown_form=False,
        first_image_seconds=3.0,
        generation_seconds=2.0,
        diffusion=WORK,
    )
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(ImageFinished) < kinds.index(RequestFinished)


def test_images_that_come_one_by_one_add_up_and_the_first_is_timed(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    deliver(request_, [])
    clock.advance(1.0)
    deliver(request_, [Tensor(64, 64, 3)])
    clock.advance(1.0)
    deliver(request_, [Tensor(64, 64, 3)])
    request_.end(None)
    event = recorder.only(ImageFinished)
    assert (event.images, event.first_image_seconds) == (2, 1.0)


def test_video_of_a_request_is_told_at_its_end(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    generate(request_, clock)
    deliver(request_, Tensor(2, 12, 64, 64, 3), is_video=True, payload={"fps": 8})
    request_.end(None)
    assert recorder.only(VideoFinished) == VideoFinished(
        request_id="a",
        model_name="tiny",
        stage=0,
        replica=1,
        videos=2,
        frames=24,
        frame_rate=8.0,
        duration_seconds=3.0,
        first_video_seconds=2.0,
        generation_seconds=2.0,
        diffusion=WORK,
    )


def test_chunks_of_a_streamed_video_are_one_video(request_: OpenRequest, recorder: Any) -> None:
    for frames in (5, 4, 4):
        deliver(request_, [Tensor(1, frames, 64, 64, 3)], is_video=True)
    request_.end(None, requested_frame_rates={0: 13.0})
    event = recorder.only(VideoFinished)
    assert (event.videos, event.frames, event.duration_seconds) == (1, 13, 1.0)


@pytest.mark.parametrize(
    ("stated", "requested", "encoded", "rate"),
    [
        (8, 16.0, 24.0, 24.0),
        (8, 16.0, None, 8.0),
        (None, 16.0, None, 16.0),
        (None, None, 24.0, 24.0),
        (None, None, None, None),
    ],
)
def test_frame_rate_is_the_one_it_is_played_at(
    request_: OpenRequest,
    recorder: Any,
    stated: float | None,
    requested: float | None,
    encoded: float | None,
    rate: float | None,
) -> None:
    rates = {} if requested is None else {0: requested}
    with encoding() as endpoint:
        deliver(request_, Tensor(1, 24, 64, 64, 3), payload={"fps": stated})
        request_.end(None, requested_frame_rates=rates)
        assert recorder.of(VideoFinished) == [], "the endpoint has not said its rate yet"
        endpoint.encodes_at(encoded)
    event = recorder.only(VideoFinished)
    assert event.frame_rate == rate
    assert event.duration_seconds == (None if rate is None else 24 / rate)


def test_interpolated_frames_play_faster_unless_the_endpoint_says(
    request_: OpenRequest, recorder: Any
) -> None:
    payload = {"metadata": {"video": {"video_fps_multiplier": 4}}}
    deliver(request_, Tensor(1, 24, 64, 64, 3), is_video=None, payload=payload)
    request_.end(None, requested_frame_rates={0: 6.0})
    assert recorder.only(VideoFinished).frame_rate == 24.0


def test_unknown_form_is_no_image_and_no_video(request_: OpenRequest, recorder: Any) -> None:
    deliver(request_, Tensor(2, 16, 64, 64))
    request_.end(None)
    event = recorder.only(ImageFinished)
    assert (event.images, event.unknown_form, event.first_image_seconds) == (0, True, None)


def test_unknown_form_leaves_the_frames_open(request_: OpenRequest, recorder: Any) -> None:
    deliver(request_, Tensor(1, 16, 21, 60, 104), is_video=True)
    request_.end(None, requested_frame_rates={0: 8.0})
    event = recorder.only(VideoFinished)
    assert (event.frames, event.duration_seconds) == (None, None)


@pytest.mark.parametrize("error", [GeneratorExit(), RuntimeError("out of memory")])
def test_requests_that_were_cut_short_have_no_images_and_no_videos(
    request_: OpenRequest, recorder: Any, error: BaseException
) -> None:
    with encoding() as endpoint:
        deliver(request_, [Tensor(64, 64, 3)])
        request_.end(error)
        endpoint.encodes_at(8.0)
    assert recorder.of(ImageFinished) == recorder.of(VideoFinished) == []
    assert recorder.only(RequestFinished).outcome in ("abort", "error")


def test_replica_is_the_stages_own_when_the_output_does_not_say(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    generate(request_, clock)
    deliver(request_, [Tensor(64, 64, 3)], replica=None)
    request_.end(None)
    assert recorder.only(ImageFinished).replica == 1


# The endpoint that encodes


class Artifacts:
    def __init__(self, output_fps: object) -> None:
        self.output_fps = output_fps


def endpoint_of(request: OpenRequest, result: Any) -> Any:
    async def _run_and_extract(self: Any, order: str, reference_id: str) -> Any:
        deliver(request, Tensor(1, 24, 64, 64, 3))
        request.end(None)
        if isinstance(result, Exception):
            raise result
        return result

    return wrap_run_and_extract(_run_and_extract, None)(None, "order", "a")


def drive(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def test_endpoint_says_the_rate_and_gets_its_artifacts(
    request_: OpenRequest, recorder: Any
) -> None:
    artifacts = Artifacts(12)
    assert drive(endpoint_of(request_, artifacts)) is artifacts
    assert recorder.only(VideoFinished).frame_rate == 12.0


def test_endpoint_that_finds_no_video_in_the_output_counts_none(
    request_: OpenRequest, recorder: Any
) -> None:
    with pytest.raises(LookupError):
        drive(endpoint_of(request_, LookupError("no video outputs found")))
    assert recorder.of(VideoFinished) == []


@pytest.mark.parametrize("rate", [None, 0, -1])
def test_endpoint_without_a_rate_leaves_it_to_the_output(
    request_: OpenRequest, recorder: Any, rate: object
) -> None:
    drive(endpoint_of(request_, Artifacts(rate)))
    assert recorder.only(VideoFinished).frame_rate is None


def test_fault_of_ours_does_not_reach_the_endpoint(
    request_: OpenRequest, recorder: Any, log: Any
) -> None:
    artifacts = Artifacts("twelve")
    assert drive(endpoint_of(request_, artifacts)) is artifacts
    assert len(log.messages) == 1
    assert "the end of a video" in log.messages[0]
