"""The samples of images and videos, and of the diffusion engines that make them."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    DiffusionWork,
    ImageFinished,
    ReplicaJoined,
    ReplicaLeft,
    StageFinished,
    VideoFinished,
    hookimpl,
)

_IMAGE = ("image_ttfp_seconds", "image_num_total", "image_generation_time_seconds", "image_pixels")
_VIDEO = (
    "video_generation_time_seconds",
    "video_duration_seconds",
    "video_rtf",
    "video_frames_total",
)
#: The families of a diffusion engine's timings, and the event's fields that feed them.
_TIMINGS = {
    "diffusion_preprocess_time_ms": "preprocess_seconds",
    "diffusion_exec_time_ms": "exec_seconds",
    "diffusion_postprocess_time_ms": "postprocess_seconds",
    "diffusion_step_time_ms": "step_seconds",
}
#: The families of the pipelines' own parts, which are there only while the engine profiles them.
_PROFILED = {
    "diffusion_text_encode_seconds": "text_encode_seconds",
    "diffusion_forward_seconds": "denoise_seconds",
    "denoise_step_latency_seconds": "step_latency_seconds",
    "vae_decode_seconds": "vae_decode_seconds",
}
_STEPS = ("diffusion_steps_total", "num_inference_steps")
#: Many pipelines have nothing to prepare; there is no sample then, and none is missing.
_OPTIONAL = frozenset({"diffusion_preprocess_time_ms"})


class ImageChildren:
    """The label children of one stage replica's image families."""

    __slots__ = ("generation", "images", "pixels", "ttfp")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.ttfp = families["image_ttfp_seconds"].labels(*labels)
        self.images = families["image_num_total"].labels(*labels)
        self.generation = families["image_generation_time_seconds"].labels(*labels)
        self.pixels = families["image_pixels"].labels(*labels)


class VideoChildren:
    """The label children of one stage replica's video families."""

    __slots__ = ("duration", "frames", "generation", "rtf")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.generation = families["video_generation_time_seconds"].labels(*labels)
        self.duration = families["video_duration_seconds"].labels(*labels)
        self.rtf = families["video_rtf"].labels(*labels)
        self.frames = families["video_frames_total"].labels(*labels)


class DiffusionChildren:
    """The label children of one diffusion stage replica."""

    __slots__ = ("profiled", "steps", "steps_each", "timings")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.steps, self.steps_each = (families[stem].labels(*labels) for stem in _STEPS)
        self.profiled = [
            (field, families[stem].labels(*labels)) for stem, field in _PROFILED.items()
        ]
        self.timings = {stem: families[stem].labels(*labels) for stem in _TIMINGS}


class VisualSamples:
    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._images = PerReplica(ImageChildren, families)
        self._videos = PerReplica(VideoChildren, families)
        self._diffusion = PerReplica(DiffusionChildren, families)
        #: Bytes, by model, stage and replica.
        self._peaks: dict[tuple[str, int, int], int] = {}

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series stand at 0 of what a replica makes, and of its diffusion engine."""
        if "image" in event.makes:
            self._images.expect(event)
            self._families.expect_missing(*_IMAGE)
            self._families.expect("metrics_events_total", "omni_image_finished")
        if "video" in event.makes:
            self._videos.expect(event)
            self._families.expect_missing(*_VIDEO)
            self._families.expect("metrics_events_total", "omni_video_finished")
        if event.stage_type == "diffusion":
            self._diffusion.expect(event)
            self._families.expect_missing(*_TIMINGS, *_STEPS)

    def forget(self, event: ReplicaLeft) -> None:
        """A replica that left holds no memory; if it joins again, it begins anew."""
        key = (event.model_name, event.stage, event.replica)
        if self._peaks.pop(key, None) is not None:
            self._families.withdraw("peak_memory_bytes", (key[0], str(key[1]), str(key[2])))

    @hookimpl
    def omni_image_finished(self, event: ImageFinished) -> None:
        if event.replica is None:
            self._missing("unknown_replica", *_IMAGE)
            return
        if not event.images:
            self._missing("unknown_form" if event.unknown_form else "no_image", *_IMAGE)
            return
        children = self._images[event.model_name, event.stage, event.replica]
        children.images.inc(event.images)
        for pixels in event.pixels:
            children.pixels.observe(pixels)
        if event.first_image_seconds is None:
            self._missing("unknown_arrival", "image_ttfp_seconds")
        else:
            children.ttfp.observe(event.first_image_seconds)
        if event.generation_seconds is None:
            self._missing("no_generation_time", "image_generation_time_seconds")
        else:
            children.generation.observe(event.generation_seconds)
        if event.unknown_form:  # beside the images that could be counted
            self._missing("unknown_form", "image_num_total", "image_pixels")

    @hookimpl
    def omni_video_finished(self, event: VideoFinished) -> None:
        if event.replica is None:
            self._missing("unknown_replica", *_VIDEO)
            return
        if not event.frames:
            self._missing("unknown_form" if event.frames is None else "no_frames", *_VIDEO)
            return
        children = self._videos[event.model_name, event.stage, event.replica]
        children.frames.inc(event.frames)
        if event.generation_seconds is None:
            self._missing("no_generation_time", "video_generation_time_seconds", "video_rtf")
        else:
            children.generation.observe(event.generation_seconds)
        if event.duration_seconds is None:
            self._missing("no_frame_rate", "video_duration_seconds", "video_rtf")
            return
        children.duration.observe(event.duration_seconds)
        rtf = event.rtf
        if rtf is not None:
            children.rtf.observe(rtf)

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        work = event.diffusion
        if work is None or event.model_name is None:
            return
        children = self._diffusion[event.model_name, event.stage, event.replica]
        for stem, child in children.timings.items():
            self._observe_timing(stem, child, work)
        if work.steps is None:
            self._missing("not_seen", *_STEPS)
        else:
            children.steps.inc(work.steps)
            children.steps_each.observe(work.steps)
        for field, child in children.profiled:
            seconds: float | None = getattr(work, field)
            if seconds is not None:
                child.observe(seconds)
        if work.peak_memory_bytes is not None:
            self._reached(event.model_name, event.stage, event.replica, work.peak_memory_bytes)

    def _reached(self, model_name: str, stage: int, replica: int, peak: int) -> None:
        key = (model_name, stage, replica)
        if peak > self._peaks.get(key, 0):
            self._peaks[key] = peak
            gauge = self._families["peak_memory_bytes"]
            gauge.labels(model_name, str(stage), str(replica)).set(peak)

    def _observe_timing(self, stem: str, child: Any, work: DiffusionWork) -> None:
        seconds: float | None = getattr(work, _TIMINGS[stem])
        if seconds is not None:
            child.observe(1000.0 * seconds)
        elif stem not in _OPTIONAL:
            self._missing("no_timing", stem)
