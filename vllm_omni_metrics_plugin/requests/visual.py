"""What each stage of a request has delivered of images and videos, and the events of their end.

A video's frame rate is often known only to the endpoint that encodes it, after the engine has
finished. Such an endpoint opens :func:`encoding` around its call of the engine; the end of the
videos that it asked for is told when it says the rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from vllm_omni_metrics_plugin.hooks import ImageFinished, VideoFinished, plugins
from vllm_omni_metrics_plugin.media import visual

if TYPE_CHECKING:
    from vllm_omni_metrics_plugin.requests.state import OpenRequest

_image_finished = plugins.hooks.omni_image_finished
_video_finished = plugins.hooks.omni_video_finished


class Encoding:
    """An endpoint that encodes the videos of its requests itself."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[float | None], None]] = []

    def encodes_at(self, frame_rate: float | None) -> None:
        """The endpoint encodes what it got at this rate in Hz, None if it does not say."""
        for finish in self.waiting:
            finish(frame_rate)
        self.waiting.clear()


_encoding: ContextVar[Encoding | None] = ContextVar("omni_metrics_encoding", default=None)


@contextmanager
def encoding() -> Iterator[Encoding]:
    """For the length of the block, videos end only when the endpoint says their frame rate."""
    endpoint = Encoding()
    token = _encoding.set(endpoint)
    try:
        yield endpoint
    finally:
        _encoding.reset(token)


class VisualOutput:
    """The images or videos that one stage has delivered for a request."""

    __slots__ = (
        "first_seconds",
        "frame_rate",
        "frames",
        "is_video",
        "pixels",
        "rate_multiplier",
        "replica",
        "unknown_form",
        "videos",
    )

    def __init__(self) -> None:
        self.is_video = False
        self.replica: int | None = None
        self.first_seconds: float | None = None
        #: Of each image.
        self.pixels: list[int] = []
        self.videos = 0
        self.frames = 0
        self.frame_rate: float | None = None
        self.rate_multiplier = 1.0
        #: Something was delivered that is neither images nor videos as far as its form tells.
        self.unknown_form = False


def visual_output(
    request: OpenRequest,
    content: Any,
    payload: Mapping[str, Any],
    stage: int,
    replica: int | None,
    *,
    is_video: bool | None,
    frames_in_file: Callable[[bytes], int | None],
) -> None:
    """An output of an image or video stage leaves for the client.

    ``content`` are the images or videos themselves, ``payload`` the multimodal output beside them.
    ``is_video`` is None where the engine does not say; the endpoint that asked for it knows best.
    """
    now = time.monotonic()
    generation = request.generations.get(stage)
    if generation is None:
        generation = request.generations[stage] = VisualOutput()
    if replica is not None:
        generation.replica = replica
    if _encoding.get() is not None:
        is_video = True
    generation.is_video |= visual.states_video(payload) if is_video is None else is_video
    try:
        if generation.is_video:
            videos = visual.measure_videos(content, frames_in_file)
            # The parts of a streamed video belong to one.
            generation.videos = max(generation.videos, videos.videos)
            generation.frames += videos.frames
            something = videos.frames > 0
            generation.frame_rate = visual.find_frame_rate(payload) or generation.frame_rate
            generation.rate_multiplier = visual.find_rate_multiplier(payload)
        else:
            pixels = visual.measure_images(content)
            generation.pixels += pixels
            something = bool(pixels)
    except visual.UnknownFormError:
        generation.unknown_form = True
        return
    if something and generation.first_seconds is None:
        generation.first_seconds = now - request.arrived_at


def finish(request: OpenRequest, requested_frame_rates: Mapping[int, float]) -> None:
    """The request ended by itself: tell what it got.

    ``requested_frame_rates`` in Hz, by stage; they hold where the output states no rate itself.
    """
    for stage, generation in request.generations.items():
        if generation.is_video:
            _finish_video(request, stage, generation, requested_frame_rates.get(stage))
        else:
            _finish_image(request, stage, generation)


def _finish_image(request: OpenRequest, stage: int, generation: VisualOutput) -> None:
    if not _image_finished.listeners:
        return
    work = request.stages.get(stage)
    _image_finished(
        ImageFinished(
            request_id=request.request_id,
            model_name=request.model_name,
            stage=stage,
            replica=_replica(request, stage, generation),
            images=len(generation.pixels),
            pixels=tuple(generation.pixels),
            unknown_form=generation.unknown_form,
            first_image_seconds=generation.first_seconds,
            generation_seconds=work.generation_seconds if work else None,
            diffusion=work.diffusion if work else None,
        )
    )


def _finish_video(
    request: OpenRequest, stage: int, generation: VisualOutput, requested: float | None
) -> None:
    work = request.stages.get(stage)
    own = generation.frame_rate or requested
    own = None if own is None else own * generation.rate_multiplier

    def tell(encoded: float | None) -> None:
        if not _video_finished.listeners:
            return
        frame_rate = encoded or own
        frames = None if generation.unknown_form else generation.frames
        _video_finished(
            VideoFinished(
                request_id=request.request_id,
                model_name=request.model_name,
                stage=stage,
                replica=_replica(request, stage, generation),
                videos=generation.videos,
                frames=frames,
                frame_rate=frame_rate,
                duration_seconds=frames / frame_rate if frames and frame_rate else None,
                first_video_seconds=generation.first_seconds,
                generation_seconds=work.generation_seconds if work else None,
                diffusion=work.diffusion if work else None,
            )
        )

    endpoint = _encoding.get()
    if endpoint is None:
        tell(None)
    else:
        endpoint.waiting.append(tell)


def _replica(request: OpenRequest, stage: int, generation: VisualOutput) -> int | None:
    if generation.replica is not None:
        return generation.replica
    work = request.stages.get(stage)
    return work.replica if work else None
