"""What the clients of sessions send, and ask of the sessions themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.duplex.tables import sessions_of
from vllm_omni_metrics_plugin.patches.state import EngineState

#: Bytes of a sample; of other formats it is not known how much they hold.
_SAMPLE_BYTES = {
    **{"pcm16": 2, "pcm": 2, "pcm_s16le": 2, "s16le": 2, "pcm_f32le": 4},
    **{"g711_ulaw": 1, "g711_alaw": 1},
}
_USUAL_RATE = 16_000
_G711_RATE = 8_000


def wrap_dispatch(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``DuplexSessionManager._dispatch_command``: everything that a client sends in a session."""

    @functools.wraps(original)
    def _dispatch_command(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        try:  # for each piece of speech: no context manager
            _take(self, message, state)
        except Exception as error:
            internal_errors.report("a command of a session", error)
        return original(self, message, *args, **kwargs)

    return _dispatch_command


def wrap_result(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``DuplexSessionManager._put_result``: the answer to opening, resuming, touching, closing."""

    @functools.wraps(original)
    async def _put_result(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        with internal_errors.suppressed("the state of a session"):
            operation, ok, error = (kwargs.get(name) for name in ("operation", "ok", "error"))
            _answered(self, message, operation, ok, error, state)
        return await original(self, message, *args, **kwargs)

    return _put_result


def wrap_shutdown(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``DuplexSessionManager.shutdown``: the engine ends, and tells no client so."""

    @functools.wraps(original)
    async def shutdown(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await original(self, *args, **kwargs)
        finally:
            with internal_errors.suppressed("the end of all sessions"):
                sessions_of(self, state).close_all("shutdown")

    return shutdown


def _take(manager: Any, message: Any, state: EngineState) -> None:
    session = sessions_of(manager, state).get(message.session_id)
    if session is None:
        return
    command = message.command
    name = type(command).__name__
    if name == "AppendAudio":
        if command.audio:
            session.speech.comes(_milliseconds(command))
    elif name == "Commit":
        session.speech.commits()
    elif name == "CreateResponse":
        session.speech.requests()
    elif name == "BargeIn":
        session.interrupts("client")


def _milliseconds(command: Any) -> float:
    rate = command.sample_rate_hz
    if rate is None:
        rate = _G711_RATE if command.format.startswith("g711") else _USUAL_RATE
    samples = len(command.audio) / _SAMPLE_BYTES.get(command.format, 2)
    return samples * 1000 / float(rate)


def _answered(
    manager: Any, message: Any, operation: Any, ok: Any, error: Any, state: EngineState
) -> None:
    sessions = sessions_of(manager, state)
    if operation == "open" and not ok:
        code = manager._control_error(error)[0] if error is not None else "other"
        if message.session_id not in manager.runners:
            sessions.close(message.session_id, "error")  # it was open for a moment
        sessions.refuse(code)
        return
    session = sessions.get(message.session_id) if ok else None
    if session is None:
        return
    if operation == "resume":
        session.attach(True)
    elif operation == "touch" and message.activity == "detach":
        session.attach(False)
