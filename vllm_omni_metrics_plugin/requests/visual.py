"""The images or videos that one stage has delivered for a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import ImageFinished, VideoFinished
from vllm_omni_metrics_plugin.media import visual
from vllm_omni_metrics_plugin.requests.encoding import Encoding
from vllm_omni_metrics_plugin.requests.work import StageWork


class VisualOutput:
    """Counts images, pixels and frames; keeps no picture."""

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
        #: Hz, as the output states it.
        self.frame_rate: float | None = None
        self.rate_multiplier = 1.0
        #: Something was delivered that is neither images nor videos as far as its form tells.
        self.unknown_form = False

    def add(
        self,
        content: Any,
        payload: Mapping[str, Any],
        since_arrival_seconds: float | None,
        *,
        is_video: bool | None,
        frames_in_file: Callable[[bytes], int | None],
    ) -> None:
        """Take an output in: ``content`` are its images or videos, ``payload`` what lies beside.

        ``is_video`` is None where nobody says; the payload may.
        """
        self.is_video |= visual.states_video(payload) if is_video is None else is_video
        try:
            if self.is_video:
                something = self._add_videos(content, payload, frames_in_file)
            else:
                pixels = visual.measure_images(content)
                self.pixels += pixels
                something = bool(pixels)
        except visual.UnknownFormError:
            self.unknown_form = True
            return
        if something and self.first_seconds is None:
            self.first_seconds = since_arrival_seconds

    def _add_videos(
        self,
        content: Any,
        payload: Mapping[str, Any],
        frames_in_file: Callable[[bytes], int | None],
    ) -> bool:
        found = visual.measure_videos(content, frames_in_file)
        # The parts of a streamed video belong to one.
        self.videos = max(self.videos, found.videos)
        self.frames += found.frames
        self.frame_rate = visual.find_frame_rate(payload) or self.frame_rate
        self.rate_multiplier = visual.find_rate_multiplier(payload)
        return found.frames > 0

    def finish(
        self,
        hooks: Any,
        request_id: str,
        model_name: str,
        stage: int,
        work: StageWork | None,
        *,
        requested: float | None,
        encoding: Encoding | None,
    ) -> ImageFinished | VideoFinished | None:
        """Their end is told, that of videos when ``encoding`` says at what rate it encodes them.

        Returns the event, as far as anybody asks for it or for the whole of the request; None of
        videos whose rate is not said yet.
        """
        hook = hooks.omni_video_finished if self.is_video else hooks.omni_image_finished
        told: list[ImageFinished | VideoFinished] = []

        def finish(encoded: float | None) -> None:
            if not hook.listeners and not hooks.omni_request_finished.listeners:
                return
            about = (request_id, model_name, stage, work)
            told.append(
                self.video_finished(*about, requested=requested, encoded=encoded)
                if self.is_video
                else self.image_finished(*about)
            )
            if hook.listeners:
                hook(told[0])

        if encoding is None or not self.is_video:
            finish(None)
        else:
            encoding.when_said(finish)
        return told[0] if told else None

    def image_finished(
        self, request_id: str, model_name: str, stage: int, work: StageWork | None
    ) -> ImageFinished:
        """The event of the images' end."""
        return ImageFinished(
            request_id=request_id,
            model_name=model_name,
            stage=stage,
            replica=self._replica(work),
            images=len(self.pixels),
            pixels=tuple(self.pixels),
            unknown_form=self.unknown_form,
            first_image_seconds=self.first_seconds,
            generation_seconds=work.generation_seconds if work else None,
            diffusion=work.diffusion if work else None,
        )

    def video_finished(
        self,
        request_id: str,
        model_name: str,
        stage: int,
        work: StageWork | None,
        *,
        requested: float | None,
        encoded: float | None,
    ) -> VideoFinished:
        """The event of the videos' end.

        The frame rate in Hz is the one that the endpoint ``encoded`` at, else the output's own,
        else the one that was ``requested``.
        """
        stated = self.frame_rate or requested
        frame_rate = encoded or (None if stated is None else stated * self.rate_multiplier)
        frames = None if self.unknown_form else self.frames
        return VideoFinished(
            request_id=request_id,
            model_name=model_name,
            stage=stage,
            replica=self._replica(work),
            videos=self.videos,
            frames=frames,
            frame_rate=frame_rate,
            duration_seconds=frames / frame_rate if frames and frame_rate else None,
            first_video_seconds=self.first_seconds,
            generation_seconds=work.generation_seconds if work else None,
            diffusion=work.diffusion if work else None,
        )

    def _replica(self, work: StageWork | None) -> int | None:
        if self.replica is None and work is not None:
            return work.replica
        return self.replica
