"""The events: small immutable objects, the plugin's only vocabulary.

Times (``*_at``) are monotonic seconds of the host (``time.monotonic``), comparable between the
processes of one host. Durations (``*_seconds``) are differences of such times. ``None`` means that
the value could not be measured; it is never replaced by 0.

``request_id`` is the engine's internal id: unique, shared by all events of one request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from vllm_omni_metrics_plugin.settings import Settings

Role = Literal["server", "stage_engine", "worker", "model_inspection"]
PatchStatus = Literal["applied", "deferred", "skipped", "failed"]
Modality = Literal["audio"]
Operation = Literal["send", "receive"]

# What comes from another process is checked against these.
Number = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
Text = Annotated[str, msgspec.Meta(max_length=512)]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events."""


class Configured(Event, frozen=True, kw_only=True):
    """The plugin is ready in this process."""

    settings: Settings
    #: What this process is to the engine; ``server`` is also any script's own process.
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


class TransferSent(Event, frozen=True, kw_only=True):
    """One payload left for the next stage (``put`` of a connector returned).

    In the stage engine's process, where it is measured, the receiver is not known. In the server it
    is: there the event follows once the receiver has reported too, or never will.
    """

    #: None in a stage engine's process.
    model_name: Text | None = None
    from_stage: Number
    #: None if the sending process does not know its own number.
    from_replica: Number | None
    to_stage: Number
    #: None in a stage engine's process, and for a payload that nobody took.
    to_replica: Number | None = None
    #: What the connector calls the payload; unique while it is under way.
    key: Text
    #: The connector's class.
    connector: Text
    #: As serialized.
    size_bytes: Bytes
    #: Serializing and handing over to the connector.
    seconds: Seconds
    #: When that was done.
    sent_at: float
    #: Times are comparable between processes that name the same clock.
    clock: Text


class TransferReceived(Event, frozen=True, kw_only=True):
    """One payload arrived at a stage (``get`` of a connector returned one)."""

    model_name: Text | None = None
    from_stage: Number
    #: None in a stage engine's process, and when the sender's report was lost.
    from_replica: Number | None = None
    to_stage: Number
    to_replica: Number | None
    key: Text
    connector: Text
    #: As the receiving connector says it; compressing or padding ones differ from the sender's.
    size_bytes: Bytes
    #: Of the ``get`` that succeeded: receiving and decoding. Where it began before the sender was
    #: done, only what came after, in the server.
    seconds: Seconds
    received_at: float
    #: From the sender's end to the receiver's beginning; None in a stage engine's process, when the
    #: sender's report was lost, and between hosts.
    in_flight_seconds: Seconds | None = None
    clock: Text


class TransferFailed(Event, frozen=True, kw_only=True):
    """A connector could not send or receive a payload."""

    model_name: Text | None = None
    from_stage: Number
    to_stage: Number
    operation: Operation
    #: Of the side that failed.
    replica: Number | None
    key: Text
    connector: Text
    #: ``refused`` when the connector said no, else the class of the exception that it raised.
    reason: Text


class EventsDropped(Event, frozen=True, kw_only=True):
    """Events of other processes did not arrive here."""

    #: ``queue_full``: the sender had too many waiting. ``lost``: gone on the way. ``garbage`` and
    #: ``oversized``: frames that were no events.
    reason: str
    #: Events; frames for ``garbage`` and ``oversized``, whose events cannot be counted.
    count: int
