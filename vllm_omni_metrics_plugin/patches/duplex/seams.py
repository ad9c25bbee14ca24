"""The places of sessions of speech in and out at once; an engine without any never loads them."""

from __future__ import annotations

from vllm_omni_metrics_plugin.patches.duplex import asked, told, voice
from vllm_omni_metrics_plugin.patches.feeds import SESSIONS, TURNS, VOICE, WAITS
from vllm_omni_metrics_plugin.patches.seams.seam import Seam

_MANAGER = "vllm_omni.engine.duplex.session.manager"
_DETECTOR = "vllm_omni.engine.duplex.vad"

DUPLEX: tuple[Seam, ...] = (
    Seam(
        name="session_events",
        module=_MANAGER,
        attribute="DuplexSessionManager._emit_raw",
        form="function",
        wrap=told.wrap_emit,
        feeds=(*SESSIONS, *TURNS, "omni_voice_detection", "omni_voice_failed"),
        leading=("session_id", "event"),
        since="0.30.0",
    ),
    Seam(
        name="session_commands",
        module=_MANAGER,
        attribute="DuplexSessionManager._dispatch_command",
        form="function",
        wrap=asked.wrap_dispatch,
        feeds=WAITS,
        leading=("message",),
        since="0.30.0",
    ),
    Seam(
        name="session_control",
        module=_MANAGER,
        attribute="DuplexSessionManager._put_result",
        form="coroutine",
        wrap=asked.wrap_result,
        feeds=("omni_session_refused", "omni_session_attachment", "sessions"),
        leading=("message",),
        keywords=("operation", "ok", "error"),
        since="0.30.0",
    ),
    Seam(
        name="session_shutdown",
        module=_MANAGER,
        attribute="DuplexSessionManager.shutdown",
        form="coroutine",
        wrap=asked.wrap_shutdown,
        feeds=SESSIONS,
        since="0.30.0",
    ),
    Seam(
        name="voice_detection",
        module="vllm_omni.engine.duplex.session.control",
        attribute="SessionControl.run_turn_detection",
        form="coroutine",
        wrap=voice.wrap_turn_detection,
        feeds=VOICE,
        leading=("event",),
        since="0.30.0",
    ),
    Seam(
        name="voice_inference",
        module=_DETECTOR,
        attribute="SileroStreamingVAD._score_frame",
        form="function",
        wrap=voice.wrap_score,
        feeds=("omni_voice_scored",),
        leading=("frame",),
        since="0.30.0",
    ),
    Seam(
        name="voice_model",
        module=_DETECTOR,
        attribute="SileroStreamingVAD._require_backend",
        form="function",
        wrap=voice.wrap_load,
        feeds=("omni_voice_scored",),
        since="0.30.0",
    ),
)
