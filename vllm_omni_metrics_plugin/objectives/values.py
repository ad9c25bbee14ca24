"""Which families have a value for each request, and where it is read: in one event's fields.

Where a request has several samples of a family, as one for each of its stages, its value is the
largest of them. What the exporter counts as missing is None here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    DiffusionWork,
    Event,
    ImageFinished,
    MediaPacket,
    RequestFinished,
    StageFinished,
    StreamFinished,
    VideoFinished,
)

#: Outcomes of requests that did not run to their natural end.
CUT_SHORT = frozenset({"abort", "error", "rejected"})

Value = Callable[[Any], float | None]


@dataclass(frozen=True)
class PerRequest:
    """A family's value for a request.

    ``modality``: only requests for that have one; ``streamed``: only those whose audio is streamed.
    """

    event: type[Event]
    value: Value
    modality: str | None = None
    streamed: bool = False


def _ttfp(event: MediaPacket) -> float | None:
    """Of a request's first packet; nobody asks for that of the others."""
    return event.since_arrival_seconds if event.streamed else None


def _longest_stall(event: StreamFinished) -> float | None:
    """Of the first player, which also decides how the stream ended."""
    return event.players[0].longest_stall_seconds if event.players else None


def _of_images(field: str) -> PerRequest:
    def value(event: ImageFinished) -> float | None:
        found: float | None = getattr(event, field) if event.images else None
        return found

    return PerRequest(ImageFinished, value, "image")


def _pixels(event: ImageFinished) -> float | None:
    return max(event.pixels, default=None)


def _of_videos(field: str) -> PerRequest:
    def value(event: VideoFinished) -> float | None:
        found: float | None = getattr(event, field) if event.frames else None
        return found

    return PerRequest(VideoFinished, value, "video")


def _of_diffusion(field: str) -> PerRequest:
    def value(event: StageFinished) -> float | None:
        work: DiffusionWork | None = event.diffusion
        seconds: float | None = None if work is None else getattr(work, field)
        return None if seconds is None else 1000.0 * seconds

    return PerRequest(StageFinished, value)


def _latency(event: RequestFinished) -> float | None:
    return None if event.outcome in CUT_SHORT else event.end_to_end_seconds


def _queued(event: RequestFinished) -> float | None:
    return None if event.outcome == "rejected" else event.queue_seconds


#: By stem. The schedulers' own times are not among them: some are told after the request's end.
PER_REQUEST: Mapping[str, PerRequest] = {
    "audio_ttfp_seconds": PerRequest(MediaPacket, _ttfp, "audio", streamed=True),
    "audio_duration_seconds": PerRequest(AudioFinished, lambda e: e.duration_seconds, "audio"),
    "audio_rtf": PerRequest(AudioFinished, lambda e: e.rtf, "audio"),
    "audio_underrun_seconds": PerRequest(
        StreamFinished, lambda e: e.underrun_seconds, "audio", streamed=True
    ),
    "audio_longest_stall_seconds": PerRequest(
        StreamFinished, _longest_stall, "audio", streamed=True
    ),
    "image_ttfp_seconds": _of_images("first_image_seconds"),
    "image_generation_time_seconds": _of_images("generation_seconds"),
    "image_pixels": PerRequest(ImageFinished, _pixels, "image"),
    "video_generation_time_seconds": _of_videos("generation_seconds"),
    "video_duration_seconds": _of_videos("duration_seconds"),
    "video_rtf": _of_videos("rtf"),
    "diffusion_preprocess_time_ms": _of_diffusion("preprocess_seconds"),
    "diffusion_exec_time_ms": _of_diffusion("exec_seconds"),
    "diffusion_postprocess_time_ms": _of_diffusion("postprocess_seconds"),
    "diffusion_step_time_ms": _of_diffusion("step_seconds"),
    "stage_generation_time_seconds": PerRequest(StageFinished, lambda e: e.generation_seconds),
    "e2e_request_latency_seconds": PerRequest(RequestFinished, _latency),
    "request_queue_time_seconds": PerRequest(RequestFinished, _queued),
}
