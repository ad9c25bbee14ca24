"""Every hook by its name and with its event's type, as ``plugins.hooks`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import events
from vllm_omni_metrics_plugin.hooks.dispatch import HistoricHook, Hook


class Hooks:
    """The hooks to call: one attribute for each, of the hook's name.

    ::

        if plugins.hooks.omni_request_finished.listeners:
            plugins.hooks.omni_request_finished(RequestFinished(...))
    """

    omni_configured: HistoricHook[events.Configured]
    omni_patch_reported: HistoricHook[events.PatchReported]
    omni_replica_joined: Hook[events.ReplicaJoined]
    omni_replica_left: Hook[events.ReplicaLeft]
    omni_engine_stats: Hook[events.EngineStats]
    omni_request_arrived: Hook[events.RequestArrived]
    omni_stage_submitted: Hook[events.StageSubmitted]
    omni_stage_started: Hook[events.StageStarted]
    omni_stage_ended: Hook[events.StageEnded]
    omni_stage_finished: Hook[events.StageFinished]
    omni_media_packet: Hook[events.MediaPacket]
    omni_audio_finished: Hook[events.AudioFinished]
    omni_playback_stalled: Hook[events.PlaybackStalled]
    omni_stream_finished: Hook[events.StreamFinished]
    omni_image_finished: Hook[events.ImageFinished]
    omni_video_finished: Hook[events.VideoFinished]
    omni_request_finished: Hook[events.RequestFinished]
    omni_request_judged: Hook[events.RequestJudged]
    omni_session_opened: Hook[events.SessionOpened]
    omni_session_refused: Hook[events.SessionRefused]
    omni_session_attachment: Hook[events.SessionAttachment]
    omni_session_closed: Hook[events.SessionClosed]
    omni_voice_detection: Hook[events.VoiceDetection]
    omni_voice_scored: Hook[events.VoiceScored]
    omni_voice_failed: Hook[events.VoiceFailed]
    omni_turn_started: Hook[events.TurnStarted]
    omni_turn_finished: Hook[events.TurnFinished]
    omni_turn_played: Hook[events.TurnPlayed]
    omni_barge_in: Hook[events.BargeIn]
    omni_transfer_sent: Hook[events.TransferSent]
    omni_transfer_received: Hook[events.TransferReceived]
    omni_transfer_failed: Hook[events.TransferFailed]
    omni_kv_waited: Hook[events.KvWaited]
    omni_events_dropped: Hook[events.EventsDropped]

    def __init__(self, hooks: Mapping[str, Hook[Any]]) -> None:
        """``hooks`` by name; they become the attributes."""
        vars(self).update(hooks)
