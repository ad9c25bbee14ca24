"""The events: small immutable objects, the plugin's only vocabulary.

Times (``*_at``) are monotonic seconds of the host (``time.monotonic``), comparable between the
processes of one host. Durations (``*_seconds``) are differences of such times. ``None`` means that
the value could not be measured; it is never replaced by 0.

``request_id`` is the engine's internal id: unique, shared by all events of one request.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.events.media import (
    AudioFinished,
    ImageFinished,
    MediaPacket,
    Modality,
    Playing,
    StreamFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.hooks.events.process import (
    Configured,
    PatchReported,
    PatchStatus,
    Role,
)
from vllm_omni_metrics_plugin.hooks.events.replicas import EngineStats, ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.hooks.events.requests import (
    Demand,
    DiffusionWork,
    RequestArrived,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.hooks.events.transfers import (
    EventsDropped,
    Operation,
    TransferFailed,
    TransferReceived,
    TransferSent,
)

__all__ = [
    "AudioFinished",
    "Configured",
    "Demand",
    "DiffusionWork",
    "EngineStats",
    "Event",
    "EventsDropped",
    "ImageFinished",
    "MediaPacket",
    "Modality",
    "Operation",
    "PatchReported",
    "PatchStatus",
    "Playing",
    "ReplicaJoined",
    "ReplicaLeft",
    "RequestArrived",
    "RequestFinished",
    "Role",
    "StageEnded",
    "StageFinished",
    "StageStarted",
    "StageSubmitted",
    "StreamFinished",
    "TransferFailed",
    "TransferReceived",
    "TransferSent",
    "VideoFinished",
]
