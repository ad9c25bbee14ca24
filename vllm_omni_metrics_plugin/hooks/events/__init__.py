"""The events: small immutable objects, the plugin's only vocabulary.

Times (``*_at``) are monotonic seconds of the host (``time.monotonic``), comparable between the
processes of one host. Durations (``*_seconds``) are differences of such times. ``None`` means that
the value could not be measured; it is never replaced by 0.

``request_id`` is the engine's internal id: unique, shared by all events of one request.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.events.transfers import (
    TransferFailed,
    TransferReceived,
    TransferSent,
)
from vllm_omni_metrics_plugin.settings import Settings

__all__ = [
    "AudioFinished",
    "Configured",
    "DiffusionWork",
    "EngineStats",
    "Event",
    "EventsDropped",
    "ImageFinished",
    "MediaPacket",
    "Modality",
    "PatchReported",
    "PatchStatus",
    "ReplicaJoined",
    "ReplicaLeft",
    "RequestArrived",
    "RequestFinished",
    "Role",
    "StageFinished",
    "StageSubmitted",
    "TransferFailed",
    "TransferReceived",
    "TransferSent",
    "VideoFinished",
]

Role = Literal["server", "stage_engine", "worker", "model_inspection", "bench"]
PatchStatus = Literal["applied", "deferred", "skipped", "failed"]
Modality = Literal["audio"]


class Configured(Event, frozen=True, kw_only=True):
    """The plugin is ready in this process."""

    settings: Settings
    #: What this process is to the engine; ``server`` is also any script's own process. A
    #: ``bench`` loads no hooks.
    role: Role
    #: Versions by distribution: ``vllm-omni-metrics-plugin``, ``vllm``, ``vllm-omni``.
    versions: dict[str, str]


class PatchReported(Event, frozen=True, kw_only=True):
    """What became of one seam. A seam reported as ``deferred`` is reported again later."""

    name: str
    #: ``module:attribute`` in the engine.
    target: str
    #: ``deferred``: its module is not imported yet. ``skipped``: this engine has no such place.
    status: PatchStatus
    #: Empty when applied, else why not.
    reason: str = ""


class ReplicaJoined(Event, frozen=True, kw_only=True):
    """A replica became a member of its stage."""

    model_name: str
    stage: int
    replica: int
    #: The pipeline's own name for the stage (``talker``); its number if it has none.
    stage_name: str
    #: ``llm`` or ``diffusion``.
    stage_type: str


class ReplicaLeft(Event, frozen=True, kw_only=True):
    """A replica left its stage, or died."""

    model_name: str
    stage: int
    replica: int


class EngineStats(Event, frozen=True, kw_only=True):
    """A stage engine's statistics were recorded (``PrometheusStatLogger.record``).

    The objects are vLLM's own, of ``vllm.v1.metrics.stats``; do not change them.
    """

    stage: int
    replica: int
    #: ``SchedulerStats``, at most once a second; None for the batches between.
    scheduler_stats: Any
    #: ``IterationStats``; None where a batch had no outputs.
    iteration_stats: Any


class RequestArrived(Event, frozen=True, kw_only=True):
    """The client-facing engine took a request in (``AsyncOmni.generate`` began)."""

    request_id: str
    #: The id under which the endpoint and the client know the request; not always unique.
    external_request_id: str
    model_name: str
    #: Includes what the endpoint did before it called the engine, where the endpoint says so.
    arrived_at: float


class StageSubmitted(Event, frozen=True, kw_only=True):
    """A stage replica was given the request (``StagePool.submit_initial``)."""

    request_id: str
    stage: int
    replica: int
    submitted_at: float
    #: Set on the extra requests that guided generation makes: the request they belong to.
    parent_request_id: str | None = None


class DiffusionWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a diffusion engine did for a request, in its own timings; None where it gave none.

    From the metrics of ``DiffusionEngine.step_streaming``. The steps are counted where they are
    done, in ``DiffusionModelRunner``, by the calls of the noise schedulers.
    """

    #: Denoising steps that were executed, whatever was requested.
    steps: int | None = None
    #: Preparing the prompt and its pictures; None for pipelines that have nothing to prepare.
    preprocess_seconds: float | None = None
    #: Admission to output: waiting for the engine's turn, text encoding, all steps, decoding.
    exec_seconds: float | None = None
    #: Decoded tensors to images or video frames.
    postprocess_seconds: float | None = None
    #: The engine's step for the request as a whole: the three above and the output's transport.
    step_seconds: float | None = None


class StageFinished(Event, frozen=True, kw_only=True):
    """A stage replica finished the request (``StagePool.build_stage_metrics``)."""

    request_id: str
    stage: int
    replica: int
    finished_at: float
    #: Submit to finish. With chunked streaming a later stage is submitted early, so this includes
    #: its wait for the first chunk.
    generation_seconds: float | None
    #: Prompt tokens; 0 for every stage but the first.
    tokens_in: int | None
    tokens_out: int | None
    #: The engine's word for this stage: ``stop``, ``length`` ...; None where it gives none.
    finish_reason: str | None
    #: None for a request that did not come through ``AsyncOmni.generate``.
    model_name: str | None = None
    #: None for a stage without a diffusion engine.
    diffusion: DiffusionWork | None = None


class MediaPacket(Event, frozen=True, kw_only=True):
    """One packet of media leaves the engine for the client."""

    request_id: str
    model_name: str
    modality: Modality
    #: Counts the request's packets of this modality from 0.
    index: int
    #: New samples per channel in this packet, also when the engine repeats earlier ones.
    samples: int
    #: Hz.
    sample_rate: int | None
    stage: int
    replica: int | None
    left_at: float
    since_arrival_seconds: float
    #: False when the whole output leaves in one piece because the client did not ask to stream.
    streamed: bool


class AudioFinished(Event, frozen=True, kw_only=True):
    """A request's audio output is complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    #: Samples per channel; 0 when the engine finished without any audio.
    frames: int
    #: Hz.
    sample_rate: int | None
    #: ``frames / sample_rate``; None when there are no frames or no sample rate.
    duration_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    #: Arrival to first packet; None for a request that was not streamed.
    first_packet_seconds: float | None
    streamed: bool


class ImageFinished(Event, frozen=True, kw_only=True):
    """A request's images are complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    images: int
    #: Width x height of each image, as generated.
    pixels: tuple[int, ...]
    #: The stage delivered something whose form does not tell images (latents, for instance).
    unknown_form: bool
    #: Arrival to the first output with an image in it; None when there was none.
    first_image_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    diffusion: DiffusionWork | None


class VideoFinished(Event, frozen=True, kw_only=True):
    """A request's videos are complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    videos: int
    #: Of all videos together; None when the output's form does not tell (latents, for instance).
    frames: int | None
    #: Hz, as encoded where the endpoint encodes, else as the output states, else as requested.
    frame_rate: float | None
    #: ``frames / frame_rate``; None unless both are known and there are frames.
    duration_seconds: float | None
    #: Arrival to the first output with frames in it; None when there was none.
    first_video_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    diffusion: DiffusionWork | None


class RequestFinished(Event, frozen=True, kw_only=True):
    """The end of a request, exactly once per :class:`RequestArrived`, whatever happened."""

    request_id: str
    model_name: str
    #: ``stop``: natural end. ``length``: a token limit cut a stage short. ``abort``: the client
    #: hung up or cancelled. ``error``: a stage failed. ``rejected``: refused as invalid (HTTP 4xx)
    #: before anything was generated. Other values are the engine's own finish reasons.
    outcome: str
    #: Arrival to the end of the response.
    end_to_end_seconds: float
    #: Arrival to the first stage submit; None when no stage was given the request.
    queue_seconds: float | None


class EventsDropped(Event, frozen=True, kw_only=True):
    """Events of other processes did not arrive here."""

    #: ``queue_full``: the sender had too many waiting. ``lost``: gone on the way. ``garbage`` and
    #: ``oversized``: frames that were no events.
    reason: str
    #: Events; frames for ``garbage`` and ``oversized``, whose events cannot be counted.
    count: int
