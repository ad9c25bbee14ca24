"""What the clients of sessions are told, event by event; all of it passes one method.

The events are frozen, and told apart by the names of their classes; releases may have more of them.
"""

from __future__ import annotations

import binascii
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.duplex.tables import (
    only_replica,
    sessions_of,
    speaking_stage,
)
from vllm_omni_metrics_plugin.patches.duplex.voice import begins, listens
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.sessions import Cause, Session

#: Why a session is over: the engine's words, and ours.
_REASONS = {
    "client_close": "client",
    "disconnect": "disconnect",
    "disconnect_grace_expired": "disconnect",
    "idle_ttl_expired": "idle",
    "open_abandoned": "disconnect",
    "request_cleanup": "error",
    "transport_error": "error",
    "shutdown": "shutdown",
}
#: What the engine calls the end of a turn that was cancelled because the user interrupted it.
_BARGE_INS: Mapping[str, Cause] = {"turn_detected": "speech", "barge_in": "client"}
_PCM = ("pcm16", "pcm")
#: The engine's detector says of so much at once whether there is speech in it; where in it speech
#: ended, nobody knows, so the middle of the last one is taken.
FRAME_MILLISECONDS = 32
#: Why a commit is not answered.
_NOTHING_SAID = "silence_or_noise"
#: What the client wants of the voice detector is not what one can have.
_REFUSED_SETTINGS = "unsupported_turn_detection"
#: An acknowledgement names the item, which is named after the turn.
_ITEM = "item_"

Handler = Callable[[Session, Any, Any, EngineState], None]


def wrap_emit(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``DuplexSessionManager._emit_raw``: every event of every session."""

    @functools.wraps(original)
    def _emit_raw(self: Any, session_id: str, event: Any, *args: Any, **kwargs: Any) -> Any:
        try:  # for each packet: no context manager
            _take(self, session_id, event, state)
        except Exception as error:
            internal_errors.report("an event of a session", error)
        return original(self, session_id, event, *args, **kwargs)

    return _emit_raw


def reason_of(word: str) -> str:
    """Why a session is over, by the engine's word for it."""
    if word.startswith("runtime_"):
        return "error"
    return _REASONS.get(word, "other")


def _take(manager: Any, session_id: str, event: Any, state: EngineState) -> None:
    name = type(event).__name__
    if name == "SessionCreated":
        sessions = sessions_of(manager, state)
        sessions.open(session_id)
        session = sessions.get(session_id)
        if session is not None:
            begins(manager, session)
        return
    if name in ("SessionClosed", "SessionExpired"):
        sessions_of(manager, state).close(session_id, reason_of(event.reason))
        return
    handler = _HANDLERS.get(name)
    if handler is not None:
        session = sessions_of(manager, state).get(session_id)
        if session is not None:
            handler(session, event, manager, state)


def _speech_started(session: Session, event: Any, *_: Any) -> None:
    session.interrupts("speech")


def _speech_stopped(session: Session, event: Any, manager: Any, _: EngineState) -> None:
    silence = _silence_milliseconds(manager, session)
    if silence is not None:  # else it is the client's commit that the engine says so of
        quiet = math.ceil(silence / FRAME_MILLISECONDS) * FRAME_MILLISECONDS
        end = event.audio_end_ms - quiet - FRAME_MILLISECONDS / 2
        session.speech.stops(event.item_id, end)


def _committed(session: Session, event: Any, *_: Any) -> None:
    session.speech.is_committed(event.item_id, deferred=bool(event.details.get("overlap_deferred")))


def _listens(session: Session, event: Any, *_: Any) -> None:
    if event.details.get("reason") == _NOTHING_SAID:  # else a model listens on, as it always does
        session.speech.is_ignored()


def _error(session: Session, event: Any, *_: Any) -> None:
    session.speech.is_refused()
    if event.code == _REFUSED_SETTINGS:
        session.voice.fail("settings")


def _updated(session: Session, event: Any, manager: Any, _: EngineState) -> None:
    session.voice.detect(listens(manager, session))


def _response_created(session: Session, event: Any, manager: Any, _: EngineState) -> None:
    engine_session = manager.get(session.session_id)
    request_id = getattr(engine_session, "active_request_id", None)
    config = getattr(engine_session, "response_config", None)
    modalities = tuple(map(str, getattr(config, "modalities", None) or ()))
    session.turn_starts(event.response_id, request_id, modalities)


def _audio(session: Session, event: Any, manager: Any, state: EngineState) -> None:
    stage = speaking_stage(manager, state)
    session.audio(event.response_id, _payload(event), stage, only_replica(manager, stage))


def _response_done(session: Session, event: Any, *_: Any) -> None:
    status = event.response.get("status")
    details = event.response.get("status_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    if status == "completed":
        session.turn_ends(event.response_id, "stop")
    elif status == "failed":
        session.turn_ends(event.response_id, "error")
    else:
        cause = _BARGE_INS.get(str(reason))
        outcome = "cancel" if cause is None else "barge_in"
        session.turn_ends(event.response_id, outcome, cause)


def _cleared(session: Session, event: Any, *_: Any) -> None:
    session.is_cleared(event.response_id)


def _acknowledged(session: Session, event: Any, *_: Any) -> None:
    item, played = event.details.get("item_id"), event.details.get("played_ms")
    if isinstance(item, str) and isinstance(played, int):
        session.is_played(item.removeprefix(_ITEM), played)


_HANDLERS: dict[str, Handler] = {
    "AudioDelta": _audio,
    "ErrorEvent": _error,
    "InputCommitted": _committed,
    "Listen": _listens,
    "OutputAudioCleared": _cleared,
    "PlaybackAcknowledged": _acknowledged,
    "ResponseCreated": _response_created,
    "ResponseDone": _response_done,
    "SessionUpdated": _updated,
    "SpeechStarted": _speech_started,
    "SpeechStopped": _speech_stopped,
}


def _payload(event: Any) -> dict[str, Any]:
    """A packet in the form of a stage's output; of what is not PCM no more than its length."""
    import numpy as np

    sound = binascii.a2b_base64(event.delta)
    kind = "<i2" if event.format in _PCM else "u1"
    payload: dict[str, Any] = {"audio": np.frombuffer(sound, kind)}
    if event.sample_rate_hz is not None:
        payload["sr"] = event.sample_rate_hz
    return payload


def _silence_milliseconds(manager: Any, session: Session) -> int | None:
    """How long a silence ends speech; None where the server does not listen for it."""
    runner = manager.runners.get(session.session_id)
    config = getattr(getattr(runner, "control", None), "_config", None)
    silence = getattr(config, "silence_duration_ms", None)
    return silence if isinstance(silence, int) else None
