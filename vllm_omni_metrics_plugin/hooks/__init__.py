"""The public API for hook authors.

A hook plugin is a module or object with functions marked ``@hookimpl``: a file that
``VLLM_OMNI_METRICS_HOOKS`` names, a package with an entry point of the group
``vllm_omni_metrics_plugin.hooks``, or what is registered at run time::

    from vllm_omni_metrics_plugin.hooks import hookimpl, plugins

    class Log:
        @hookimpl
        def omni_request_finished(self, event):
            print(event.outcome, event.end_to_end_seconds)

    plugins.register(Log())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_omni_metrics_plugin.hooks.events import (
    AudioFinished,
    BargeIn,
    Configured,
    Demand,
    DiffusionWork,
    EngineStats,
    Event,
    EventsDropped,
    ImageFinished,
    KvWaited,
    MediaPacket,
    PatchReported,
    PathSegment,
    PlaybackStalled,
    Playing,
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    Segment,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StageSummary,
    StreamFinished,
    TransferFailed,
    TransferReceived,
    TransferSent,
    TurnFinished,
    TurnPlayed,
    TurnStarted,
    VideoFinished,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
)
from vllm_omni_metrics_plugin.hooks.hooks import Hooks
from vllm_omni_metrics_plugin.hooks.marks import Process, hookimpl, hookplugin
from vllm_omni_metrics_plugin.hooks.registry import HookRegistry
from vllm_omni_metrics_plugin.hooks.renamed import module_getattr
from vllm_omni_metrics_plugin.hooks.stats import HookStats

__all__ = [
    "AudioFinished",
    "BargeIn",
    "Configured",
    "Demand",
    "DiffusionWork",
    "EngineStats",
    "Event",
    "EventsDropped",
    "HookRegistry",
    "HookStats",
    "Hooks",
    "ImageFinished",
    "KvWaited",
    "MediaPacket",
    "PatchReported",
    "PathSegment",
    "PlaybackStalled",
    "Playing",
    "Process",
    "ReplicaJoined",
    "ReplicaLeft",
    "RequestArrived",
    "RequestFinished",
    "RequestJudged",
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
    "TurnFinished",
    "TurnPlayed",
    "TurnStarted",
    "VideoFinished",
    "VoiceDetection",
    "VoiceFailed",
    "VoiceScored",
    "hookimpl",
    "hookplugin",
    "plugins",
]

#: The hook plugins of this process.
plugins = HookRegistry()

if not TYPE_CHECKING:
    __getattr__ = module_getattr(__name__, {"HookManager": "HookRegistry", "Account": "HookStats"})
