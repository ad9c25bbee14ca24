"""What is known of each request that is open, and the events that follow from it.

The patches tell this module what the engine does; it knows nothing of the engine itself. A
request's state lives from :meth:`OpenRequests.begin` to :meth:`OpenRequest.end` and no longer.

Two threads of the server come here: the event loop (begin, output, end) and the orchestrator
(submitted, finished). Each field is written by one of them; what the event loop reads of the
other's was written before the engine's queue handed the output over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    DiffusionWork,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
    plugins,
)
from vllm_omni_metrics_plugin.media.audio import count_samples, find_sample_rate
from vllm_omni_metrics_plugin.requests import visual

#: How a stage delivers its output: new parts, the whole so far each time, or once at the end.
Delivery = Literal["delta", "cumulative", "final"]

_arrived = plugins.hooks.omni_request_arrived
_submitted = plugins.hooks.omni_stage_submitted
_stage_finished = plugins.hooks.omni_stage_finished
_packet = plugins.hooks.omni_media_packet
_audio_finished = plugins.hooks.omni_audio_finished
_request_finished = plugins.hooks.omni_request_finished


class StageWork:
    """One stage's part in a request."""

    __slots__ = (
        "delivery",
        "diffusion",
        "finish_reason",
        "generation_seconds",
        "replica",
        "submitted_at",
    )

    def __init__(self, submitted_at: float, delivery: Delivery | None) -> None:
        self.submitted_at = submitted_at
        self.delivery = delivery
        self.replica: int | None = None
        self.generation_seconds: float | None = None
        self.finish_reason: str | None = None
        self.diffusion: DiffusionWork | None = None


class AudioOutput:
    """The audio that one stage has delivered for a request."""

    __slots__ = ("first_packet_seconds", "frames", "replica", "sample_rate", "streamed")

    def __init__(self, streamed: bool) -> None:
        self.streamed = streamed
        self.frames = 0
        self.sample_rate: int | None = None
        self.replica: int | None = None
        self.first_packet_seconds: float | None = None

    @property
    def duration_seconds(self) -> float | None:
        if not self.frames or self.sample_rate is None:
            return None
        return self.frames / self.sample_rate


class OpenRequest:
    """One request between its arrival and its end."""

    __slots__ = (
        "arrived_at",
        "audio",
        "complete",
        "delivered",
        "finish_reasons",
        "generations",
        "model_name",
        "packets",
        "request_id",
        "requests",
        "stages",
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
        self.audio: dict[int, AudioOutput] = {}
        #: Images and videos, by stage.
        self.generations: dict[int, visual.VisualOutput] = {}

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
        work = self.stages.get(stage)
        so_far = self.audio.get(stage)
        if so_far is None:
            delivery = work.delivery if work else None
            # Stages without a delivery mode, such as diffusion, stream only if they send parts.
            streamed = delivery in ("delta", "cumulative") or (delivery is None and not finished)
            so_far = self.audio[stage] = AudioOutput(streamed)
        if replica is None and work is not None:
            replica = work.replica
        if replica is None:
            replica = so_far.replica
        so_far.replica = replica

        samples = 0
        for payload in payloads:
            samples += count_samples(payload) or 0
            so_far.sample_rate = find_sample_rate(payload) or so_far.sample_rate
        if work is not None and work.delivery == "cumulative" and samples >= so_far.frames:
            samples -= so_far.frames
        if samples == 0:
            return
        so_far.frames += samples
        since_arrival = now - self.arrived_at
        if so_far.streamed and so_far.first_packet_seconds is None:
            so_far.first_packet_seconds = since_arrival
        if _packet.listeners:
            _packet(
                MediaPacket(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    modality="audio",
                    index=self.packets,
                    samples=samples,
                    sample_rate=so_far.sample_rate,
                    stage=stage,
                    replica=replica,
                    left_at=now,
                    since_arrival_seconds=since_arrival,
                    streamed=so_far.streamed,
                )
            )
        self.packets += 1

    def end(
        self,
        error: BaseException | None,
        *,
        refused: bool = False,
        requested_frame_rates: Mapping[int, float] | None = None,
    ) -> None:
        """The response ended: by itself, or because ``error`` was raised in or into it.

        ``refused``: the error tells the client that its request is invalid (HTTP 4xx). It counts
        only while nothing was delivered. ``requested_frame_rates`` in Hz, by stage.
        """
        if self.requests.by_id.pop(self.request_id, None) is not self:
            return
        now = time.monotonic()
        outcome = self._outcome(error, refused)
        if outcome not in ("abort", "error", "rejected"):
            self._finish_audio()
            visual.finish(self, requested_frame_rates or {})
        if _request_finished.listeners:
            given = [w.submitted_at for w in list(self.stages.values()) if w.replica is not None]
            _request_finished(
                RequestFinished(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    outcome=outcome,
                    end_to_end_seconds=now - self.arrived_at,
                    queue_seconds=min(given) - self.arrived_at if given else None,
                )
            )

    def _outcome(self, error: BaseException | None, refused: bool) -> str:
        if isinstance(error, (GeneratorExit, asyncio.CancelledError)):
            if not self.complete:
                return "abort"
        elif error is not None:
            return "rejected" if refused and not self.delivered else "error"
        if not self.delivered:
            return "error"  # it ended without a word; that is no success
        reasons = {work.finish_reason for work in list(self.stages.values())}
        reasons |= self.finish_reasons
        for decisive in ("error", "abort", "length"):
            if decisive in reasons:
                return decisive
        return min((reason for reason in reasons if reason and reason != "stop"), default="stop")

    def _finish_audio(self) -> None:
        if not _audio_finished.listeners:
            return
        for stage, audio in self.audio.items():
            work = self.stages.get(stage)
            _audio_finished(
                AudioFinished(
                    request_id=self.request_id,
                    model_name=self.model_name,
                    stage=stage,
                    replica=audio.replica,
                    samples=audio.frames,
                    sample_rate=audio.sample_rate,
                    duration_seconds=audio.duration_seconds,
                    generation_seconds=work.generation_seconds if work else None,
                    first_packet_seconds=audio.first_packet_seconds,
                    streamed=audio.streamed,
                )
            )


class OpenRequests:
    """All open requests of this process, by the engine's internal id."""

    def __init__(self) -> None:
        self.by_id: dict[str, OpenRequest] = {}

    def begin(
        self, request_id: str, external_request_id: str, model_name: str, arrived_at: float
    ) -> OpenRequest:
        """A request arrived; ``arrived_at`` in monotonic seconds."""
        request = OpenRequest(self, request_id, model_name, arrived_at)
        self.by_id[request_id] = request
        if _arrived.listeners:
            _arrived(
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
        if _submitted.listeners:
            _submitted(
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
        if _stage_finished.listeners:
            _stage_finished(
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
