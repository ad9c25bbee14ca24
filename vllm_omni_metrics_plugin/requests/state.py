"""The requests that are open in this process, and the events of each.

Two threads of the server come here: the event loop (begin, output, end) and the orchestrator
(submitted, finished). Each field is written by one of them; what the event loop reads of the
other's was written before the engine's queue handed the output over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    DiffusionWork,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.requests.audio import AudioOutput
from vllm_omni_metrics_plugin.requests.bindings import Bindings
from vllm_omni_metrics_plugin.requests.encoding import current_encoding
from vllm_omni_metrics_plugin.requests.outcome import CUT_SHORT, outcome_of
from vllm_omni_metrics_plugin.requests.visual import VisualOutput
from vllm_omni_metrics_plugin.requests.work import Delivery, StageWork


class OpenRequest:
    """One request between its arrival and its end."""

    __slots__ = (
        "arrived_at",
        "audio",
        "complete",
        "delivered",
        "finish_reasons",
        "model_name",
        "packets",
        "request_id",
        "requests",
        "stages",
        "visual",
    )

    def __init__(
        self, requests: OpenRequests, request_id: str, model_name: str, arrived_at: float
    ) -> None:
        self.requests = requests
        self.request_id = request_id
        self.model_name = model_name
        self.arrived_at = arrived_at
        #: The engine marked an output as the request's last one.
        self.complete = False
        #: Whether any output, of any modality, left for the client.
        self.delivered = False
        #: Finish reasons that the delivered outputs state.
        self.finish_reasons: set[str] = set()
        #: Audio packets with something in them that left for the client.
        self.packets = 0
        self.stages: dict[int, StageWork] = {}
        #: By stage.
        self.audio: dict[int, AudioOutput] = {}
        #: Images and videos, by stage.
        self.visual: dict[int, VisualOutput] = {}

    def submitting(self, stage: int, delivery: Delivery | None) -> None:
        """The orchestrator is about to give the request to a replica of ``stage``."""
        if stage not in self.stages:
            self.stages[stage] = StageWork(time.monotonic(), delivery)

    def audio_output(
        self,
        payloads: Iterable[Mapping[str, Any]],
        stage: int,
        replica: int | None,
        *,
        finished: bool,
    ) -> None:
        """An output of an audio stage leaves for the client, with its multimodal payloads."""
        now = time.monotonic()
        since_arrival = now - self.arrived_at
        work = self.stages.get(stage)
        output = self.audio.get(stage)
        if output is None:
            output = self.audio[stage] = AudioOutput(work, finished=finished)
        samples = output.add(payloads, work, replica, since_arrival)
        if samples == 0:
            return
        packet = self.requests.hooks.omni_media_packet
        if packet.listeners:
            packet(
                MediaPacket(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    modality="audio",
                    index=self.packets,
                    samples=samples,
                    sample_rate=output.sample_rate,
                    stage=stage,
                    replica=output.replica,
                    left_at=now,
                    since_arrival_seconds=since_arrival,
                    streamed=output.streamed,
                )
            )
        self.packets += 1

    def visual_output(
        self,
        content: Any,
        payload: Mapping[str, Any],
        stage: int,
        replica: int | None,
        *,
        is_video: bool | None,
        frames_in_file: Callable[[bytes], int | None],
    ) -> None:
        """An output of an image or video stage leaves for the client.

        ``content`` are the images or videos themselves, ``payload`` the multimodal output beside
        them. ``is_video`` is None where the engine does not say; the endpoint that asked for it
        knows best.
        """
        output = self.visual.get(stage)
        if output is None:
            output = self.visual[stage] = VisualOutput()
        if replica is not None:
            output.replica = replica
        output.add(
            content,
            payload,
            time.monotonic() - self.arrived_at,
            is_video=True if current_encoding() is not None else is_video,
            frames_in_file=frames_in_file,
        )

    def end(
        self,
        error: BaseException | None,
        *,
        refused: bool = False,
        requested_frame_rates: Mapping[int, float] | None = None,
    ) -> None:
        """The response ended: by itself, or because ``error`` was raised in or into it.

        ``refused``: the error tells the client that its request is invalid (HTTP 4xx).
        ``requested_frame_rates`` in Hz, by stage, hold where the output states no rate itself.
        """
        if self.requests.by_id.pop(self.request_id, None) is not self:
            return
        now = time.monotonic()
        # The orchestrator's thread may still add a stage.
        stages = list(self.stages.values())
        outcome = outcome_of(
            error,
            refused=refused,
            complete=self.complete,
            delivered=self.delivered,
            finish_reasons={work.finish_reason for work in stages} | self.finish_reasons,
        )
        if outcome not in CUT_SHORT:
            self._finish_audio()
            self._finish_visual(requested_frame_rates or {})
        finished = self.requests.hooks.omni_request_finished
        if finished.listeners:
            submits = [work.submitted_at for work in stages if work.replica is not None]
            finished(
                RequestFinished(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    outcome=outcome,
                    end_to_end_seconds=now - self.arrived_at,
                    queue_seconds=min(submits) - self.arrived_at if submits else None,
                )
            )

    def _finish_audio(self) -> None:
        finished = self.requests.hooks.omni_audio_finished
        if finished.listeners:
            for stage, output in self.audio.items():
                work = self.stages.get(stage)
                finished(output.finished(self.request_id, self.model_name, stage, work))

    def _finish_visual(self, requested_frame_rates: Mapping[int, float]) -> None:
        for stage, output in self.visual.items():
            if output.is_video:
                self._finish_video(stage, output, requested_frame_rates.get(stage))
            elif self.requests.hooks.omni_image_finished.listeners:
                work = self.stages.get(stage)
                event = output.image_finished(self.request_id, self.model_name, stage, work)
                self.requests.hooks.omni_image_finished(event)

    def _finish_video(self, stage: int, output: VisualOutput, requested: float | None) -> None:
        work = self.stages.get(stage)
        finished = self.requests.hooks.omni_video_finished

        def finish(encoded: float | None) -> None:
            if finished.listeners:
                finished(
                    output.video_finished(
                        self.request_id,
                        self.model_name,
                        stage,
                        work,
                        requested=requested,
                        encoded=encoded,
                    )
                )

        endpoint = current_encoding()
        if endpoint is None:
            finish(None)
        else:
            endpoint.waiting.append(finish)


class OpenRequests:
    """All open requests of an engine, by the engine's internal id."""

    def __init__(self, hooks: Any) -> None:
        """``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`."""
        self.hooks = hooks
        self.by_id: dict[str, OpenRequest] = {}
        self.bindings = Bindings()

    def begin(
        self, request_id: str, external_request_id: str, model_name: str, arrived_at: float
    ) -> OpenRequest:
        """A request arrived; ``arrived_at`` in monotonic seconds."""
        request = OpenRequest(self, request_id, model_name, arrived_at)
        self.by_id[request_id] = request
        self.bindings.begin(request_id, model_name)
        if self.hooks.omni_request_arrived.listeners:
            self.hooks.omni_request_arrived(
                RequestArrived(
                    request_id=request_id,
                    external_request_id=external_request_id,
                    model_name=model_name,
                    arrived_at=arrived_at,
                )
            )
        return request

    def submitted(
        self, request_id: str, stage: int, replica: int, parent_request_id: str | None
    ) -> None:
        """A replica of ``stage`` was given the request."""
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request else None
        if work is not None:
            work.replica = replica
        self.bindings.bind(request_id, stage, replica, parent_request_id)
        if self.hooks.omni_stage_submitted.listeners:
            self.hooks.omni_stage_submitted(
                StageSubmitted(
                    request_id=request_id,
                    stage=stage,
                    replica=replica,
                    submitted_at=work.submitted_at if work else time.monotonic(),
                    parent_request_id=parent_request_id,
                )
            )

    def stage_finished(
        self,
        request_id: str,
        stage: int,
        replica: int,
        finish_reason: str | None,
        tokens_in: int | None,
        tokens_out: int | None,
        diffusion: DiffusionWork | None = None,
    ) -> None:
        """A replica finished its part of the request."""
        now = time.monotonic()
        request = self.by_id.get(request_id)
        work = request.stages.get(stage) if request else None
        if work is not None:
            work.replica = replica
            work.finish_reason = finish_reason
            work.generation_seconds = now - work.submitted_at
            work.diffusion = diffusion
        if self.hooks.omni_stage_finished.listeners:
            self.hooks.omni_stage_finished(
                StageFinished(
                    request_id=request_id,
                    stage=stage,
                    replica=replica,
                    finished_at=now,
                    generation_seconds=work.generation_seconds if work else None,
                    tokens_in=tokens_in,
                    tokens_out=tokens_out,
                    finish_reason=finish_reason,
                    model_name=request.model_name if request else None,
                    diffusion=diffusion,
                )
            )
