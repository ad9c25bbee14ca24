"""How the server listens for speech in a session, by the engine's voice detector.

The orchestrator hands a piece of sound to a thread, which scores it frame by frame; what the frames
took is told when the piece comes back, in the thread in which all of a session happens.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.duplex.tables import sessions_of
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.sessions import Piece, Session

_PLACE = "a piece that is listened to"
_DETECTION = "realtime_turn_detection"


def wrap_turn_detection(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``SessionControl.run_turn_detection``: is there speech in a piece?

    What is wrong with the detector or the piece it tells the client, and goes on; anything else it
    raises.
    """

    @functools.wraps(original)
    async def run_turn_detection(self: Any, event: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "_detector", None) is None:
            return await original(self, event, *args, **kwargs)
        key, piece = 0, Piece()
        with internal_errors.suppressed(_PLACE):
            if state.hooks.omni_voice_scored.listeners:
                key = id(self._detector.vad)
                state.voices[key] = piece
        try:
            result = await original(self, event, *args, **kwargs)
        except Exception:
            with internal_errors.suppressed(_PLACE):
                _fails(self, "failed", state)
            raise
        finally:
            state.voices.pop(key, None)
        with internal_errors.suppressed(_PLACE):
            _returns(self, event, result, piece, state)
        return result

    return run_turn_detection


def wrap_score(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``SileroStreamingVAD._score_frame``: 32 ms of sound, in a thread of a pool."""

    voices = state.voices

    @functools.wraps(original)
    def _score_frame(self: Any, *args: Any, **kwargs: Any) -> Any:
        piece = voices.get(id(self))
        if piece is None:
            return original(self, *args, **kwargs)
        loaded = piece.load_seconds
        began = time.monotonic()
        probability = original(self, *args, **kwargs)
        seconds = time.monotonic() - began
        if loaded is None and piece.load_seconds is not None:
            seconds -= piece.load_seconds  # this frame waited for it
        piece.inference_seconds.append(seconds)
        return probability

    return _score_frame


def wrap_load(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``SileroStreamingVAD._require_backend``: the model, which the first frame waits for."""

    voices = state.voices

    @functools.wraps(original)
    def _require_backend(self: Any, *args: Any, **kwargs: Any) -> Any:
        piece = voices.get(id(self))
        if piece is None or getattr(self, "_backend", None) is not None:
            return original(self, *args, **kwargs)
        began = time.monotonic()
        backend = original(self, *args, **kwargs)
        piece.load_seconds = time.monotonic() - began
        return backend

    return _require_backend


def begins(manager: Any, session: Session) -> None:
    """A session is open. If no detector can be made of its settings, the engine tells no client."""
    session.voice.detect(listens(manager, session))
    if not session.voice.is_detected and _is_wanted(manager, session):
        session.voice.fail("settings")


def listens(manager: Any, session: Session) -> bool:
    """Whether the server has a detector for a session now."""
    control = getattr(manager.runners.get(session.session_id), "control", None)
    return getattr(control, "_detector", None) is not None


def _is_wanted(manager: Any, session: Session) -> bool:
    engine_session = getattr(manager.runners.get(session.session_id), "session", None)
    extra = getattr(getattr(engine_session, "config", None), "extra_body", None)
    wanted = extra.get(_DETECTION) if isinstance(extra, Mapping) else None
    return isinstance(wanted, Mapping) and wanted.get("type") == "server_vad"


def _returns(control: Any, event: Any, result: Any, piece: Piece, state: EngineState) -> None:
    if result is None:
        # Unless there was no sound in it.
        if event.get("audio"):
            _fails(control, "unavailable" if control._detector is None else "bad_audio", state)
        return
    session = _session(control, state)
    if session is not None:
        session.voice.scored(piece, result.speech_probability, result.speech_active)


def _fails(control: Any, reason: str, state: EngineState) -> None:
    session = _session(control, state)
    if session is not None:
        session.voice.fail(reason)
        session.voice.detect(control._detector is not None)


def _session(control: Any, state: EngineState) -> Session | None:
    context = control._ctx
    return sessions_of(context.manager, state).get(context.session.session_id)
