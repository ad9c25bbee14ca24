"""The events: small immutable objects, the plugin's only vocabulary.

Times (``*_at``) are monotonic seconds of the host (``time.monotonic``), comparable between the
processes of one host. Durations (``*_seconds``) are differences of such times. ``None`` means that
the value could not be measured; it is never replaced by 0.

``request_id`` is the engine's internal id: unique, shared by all events of one request.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.events.diffusion import DiffusionWork
from vllm_omni_metrics_plugin.hooks.events.media import (
    AudioFinished,
    ImageFinished,
    MediaPacket,
    Modality,
    PlaybackStalled,
    Playing,
    StreamFinished,
    Unheard,
    VideoFinished,
)
from vllm_omni_metrics_plugin.hooks.events.process import (
    Configured,
    PatchReported,
    PatchStatus,
    Role,
)
from vllm_omni_metrics_plugin.hooks.events.replicas import (
    Departure,
    EngineStats,
    ReplicaJoined,
    ReplicaLeft,
)
from vllm_omni_metrics_plugin.hooks.events.requests import (
    Demand,
    PathSegment,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    Segment,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StageSummary,
    Transport,
    Verdict,
)
from vllm_omni_metrics_plugin.hooks.events.sessions import (
    BargeIn,
    Origin,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TurnFinished,
    TurnPlayed,
    TurnStarted,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
)
from vllm_omni_metrics_plugin.hooks.events.transfers import (
    EventsDropped,
    KvWaited,
    Operation,
    TransferFailed,
    TransferReceived,
    TransferSent,
)

__all__ = [
    "AudioFinished",
    "BargeIn",
    "Configured",
    "Demand",
    "Departure",
    "DiffusionWork",
    "EngineStats",
    "Event",
    "EventsDropped",
    "ImageFinished",
    "KvWaited",
    "MediaPacket",
    "Modality",
    "Operation",
    "Origin",
    "PatchReported",
    "PatchStatus",
    "PathSegment",
    "PlaybackStalled",
    "Playing",
    "ReplicaJoined",
    "ReplicaLeft",
    "RequestArrived",
    "RequestFinished",
    "RequestJudged",
    "Role",
    "Segment",
    "SessionAttachment",
    "SessionClosed",
    "SessionOpened",
    "SessionRefused",
    "StageEnded",
    "StageFinished",
    "StageStarted",
    "StageSubmitted",
    "StageSummary",
    "StreamFinished",
    "TransferFailed",
    "TransferReceived",
    "TransferSent",
    "Transport",
    "TurnFinished",
    "TurnPlayed",
    "TurnStarted",
    "Unheard",
    "Verdict",
    "VideoFinished",
    "VoiceDetection",
    "VoiceFailed",
    "VoiceScored",
]
