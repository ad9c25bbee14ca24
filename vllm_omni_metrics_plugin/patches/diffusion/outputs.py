"""What the outputs of diffusion stages tell: the engine's timings, images, videos and rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import DiffusionWork
from vllm_omni_metrics_plugin.patches.asked import Asked
from vllm_omni_metrics_plugin.patches.diffusion.steps import take_steps
from vllm_omni_metrics_plugin.requests import OpenRequest

#: Ends of what the pipelines' profiler calls its parts, the outermost first.
_TEXT_ENCODING = (".encode_prompt", ".text_encoder.forward")
_DENOISING = (".diffuse",)
_VAE_DECODING = (".vae.decode",)
_MEBIBYTE = 1024**2

_VIDEO = frozenset({"video", "videos"})
VISUAL = frozenset({"image", "images"}) | _VIDEO


def work_of(output: Any) -> DiffusionWork:
    """What the engine says in the metrics of a finished output.

    The keys are those of ``DiffusionEngine.step_streaming`` since 0.28. All are milliseconds; those
    of the pipelines' profiler in ``stage_durations`` are seconds, and there only where it is on.
    """
    metrics = getattr(output, "metrics", None)
    if not isinstance(metrics, Mapping):
        metrics = {}
    # It says 0.0 when it has nothing to prepare.
    preprocess = _seconds(metrics.get("preprocess_time_ms")) or None
    execute = _seconds(metrics.get("diffusion_engine_exec_time_ms"))
    postprocess = _seconds(metrics.get("postprocess_time_ms"))
    if _is_later_chunk(output):
        postprocess = None  # of the last chunk alone
    step = None
    if execute is not None and postprocess is not None:
        transport = _seconds(metrics.get("output_ready_wait_time_ms")) or 0.0
        step = (preprocess or 0.0) + execute + transport + postprocess
    steps = take_steps(output)
    durations = getattr(output, "stage_durations", None)
    if not isinstance(durations, Mapping):
        durations = {}
    peak = _number(getattr(output, "peak_memory_mb", None))
    return DiffusionWork(
        steps=steps,
        preprocess_seconds=preprocess,
        exec_seconds=execute,
        postprocess_seconds=postprocess,
        step_seconds=step,
        text_encode_seconds=_profiled(durations, _TEXT_ENCODING),
        denoise_seconds=_profiled(durations, _DENOISING),
        vae_decode_seconds=_profiled(durations, _VAE_DECODING),
        peak_memory_bytes=round(peak * _MEBIBYTE) if peak is not None and peak > 0 else None,
    )


def observe(request: OpenRequest, output: Any, asked: Asked) -> None:
    """Take note of an output whose type is one of :data:`VISUAL`."""
    if _is_start_notice(output):
        return
    content = getattr(output, "images", None)
    payload = getattr(output, "multimodal_output", None)
    if not isinstance(payload, Mapping):
        payload = {}
    if not content and "video" in payload:
        content = payload["video"]
    if asked.param(output.stage_id, "output_type") == "latent":
        content = object()  # what the client asked for is no picture, whatever its shape
    request.visual_output(
        content,
        payload,
        output.stage_id,
        output.replica_id,
        is_video=_is_video(output.final_output_type, asked),
        frames_in_file=_frames_in_file,
    )


def _is_video(output_type: str, asked: Asked) -> bool | None:
    """By what was asked for, as the output of a video model is called a video in any case."""
    if asked.for_images:
        return False
    return True if output_type in _VIDEO else None


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000.0 if isinstance(milliseconds, (int, float)) else None


def _profiled(durations: Mapping[Any, Any], ends: tuple[str, ...]) -> float | None:
    """What the parts of one name took together, the first that there are; None without any."""
    for end in ends:
        parts = [_number(seconds) for name, seconds in durations.items() if str(name).endswith(end)]
        if parts and None not in parts:
            return sum(filter(None, parts), 0.0)
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _is_start_notice(output: Any) -> bool:
    """Sent when the engine admits a request of the video job endpoint, with nothing in it."""
    return not output.finished and bool(getattr(output, "custom_output", None))


def _is_later_chunk(output: Any) -> bool:
    payload = getattr(output, "multimodal_output", None)
    metadata = payload.get("metadata") if isinstance(payload, Mapping) else None
    stream = metadata.get("stream") if isinstance(metadata, Mapping) else None
    return isinstance(stream, Mapping) and bool(stream.get("generation_chunk_index"))


def _frames_in_file(video: bytes) -> int | None:
    from vllm_omni.diffusion.utils.media_utils import count_mp4_frames

    frames = count_mp4_frames(video)
    return None if frames is None else int(frames)
