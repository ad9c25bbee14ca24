"""An engine's sessions in the shapes of its own classes, and a client's side of one of them."""

from __future__ import annotations

import asyncio
import base64
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vllm_omni_metrics_plugin.patches.duplex.seams import DUPLEX
from vllm_omni_metrics_plugin.patches.state import EngineState, Stage

SESSION = "duplex-1"
RATE = 24_000
#: Of speech that is sent, and of its pieces.
INPUT_RATE = 16_000
PIECE_MILLISECONDS = 100
SILENCE_MILLISECONDS = 500


class Pool:
    """A stage of the pipeline."""

    def __init__(self, stage_id: int, replicas: int = 1) -> None:
        self.stage_id = stage_id
        self.replicas = replicas

    def live_replica_ids(self) -> list[int]:
        return list(range(self.replicas))


class DuplexSessionManager:
    """Its methods note that they were called, and with what."""

    def __init__(self, pools: list[Pool]) -> None:
        self.stage_port = SimpleNamespace(stage_pools=pools)
        self.model_config = SimpleNamespace(served_model_name="configured")
        self.runners: dict[str, Any] = {}
        self.calls: list[Any] = []

    def get(self, session_id: str) -> Any:
        return self.runners[session_id].session

    def _emit_raw(self, session_id: str, event: Any, *, epoch: int | None = None) -> None:
        self.calls.append((session_id, event, epoch))

    def _dispatch_command(self, message: Any) -> str:
        self.calls.append(message)
        return "dispatched"

    async def _put_result(
        self, message: Any, *, operation: str, ok: bool, session: Any = None, error: Any = None
    ) -> str:
        self.calls.append((message, operation, ok))
        return "answered"

    async def shutdown(self) -> str:
        self.calls.append("shutdown")
        return "stopped"

    @staticmethod
    def _control_error(error: BaseException) -> tuple[str, str, bool]:
        return str(error), "", False


def patched(state: EngineState) -> type[DuplexSessionManager]:
    """The manager with every patch of sessions on it."""
    return with_patches(DuplexSessionManager, state)


def with_patches(engine_class: type[Any], state: EngineState) -> type[Any]:
    """A class of the engine with every patch of sessions that is on one of its name."""
    methods = {}
    for seam in DUPLEX:
        name, _, method = seam.attribute.partition(".")
        if name == engine_class.__name__:
            methods[method] = seam.wrap(vars(engine_class)[method], state)
    return type(engine_class.__name__, (engine_class,), methods)


def shaped(name: str, **fields: Any) -> Any:
    """An event or command of the engine's: its class is told by its name alone."""
    return type(name, (SimpleNamespace,), {})(**fields)


@dataclass
class Conversation:
    """One session of one engine, as the engine and its client would have it."""

    state: EngineState
    clock: Any
    pools: list[Pool] = field(default_factory=lambda: [Pool(0), Pool(1)])
    #: None where the server does not listen for the end of speech.
    silence: int | None = None
    session_id: str = SESSION
    manager: Any = None
    #: What listens for speech in the server.
    detector: Any = None
    #: What the client wants of it.
    turn_detection: dict[str, Any] | None = None
    _turns: int = 0

    def __post_init__(self) -> None:
        if self.manager is None:
            self.manager = patched(self.state)(self.pools)
            for pool in self.pools:
                makes = ("audio",) if pool is self.pools[-1] else ()
                self.state.stages[pool] = Stage("tiny", f"stage {pool.stage_id}", "llm", makes)

    # What the engine does

    def tell(self, name: str, **fields: Any) -> Any:
        return self.manager._emit_raw(self.session_id, shaped(name, **fields), epoch=0)

    def open(self) -> None:
        control = SimpleNamespace(
            _config=None
            if self.silence is None
            else SimpleNamespace(silence_duration_ms=self.silence),
            _detector=self.detector,
        )
        session = SimpleNamespace(
            active_request_id=None,
            response_config=SimpleNamespace(modalities=["text", "audio"]),
            config=SimpleNamespace(extra_body={"realtime_turn_detection": self.turn_detection}),
        )
        self.manager.runners[self.session_id] = SimpleNamespace(control=control, session=session)
        self.tell("SessionCreated")

    @property
    def engine_session(self) -> Any:
        return self.manager.runners[self.session_id].session

    def commit_is_taken(self, item_id: str = "item-1", *, deferred: bool = False) -> None:
        details = {"overlap_deferred": True} if deferred else {}
        self.tell("InputCommitted", item_id=item_id, details=details)

    def turn_starts(self, request_id: str | None = "") -> str:
        """Its id; that of its request is made up unless it is None or another."""
        self._turns += 1
        turn_id = f"resp-{self.session_id}-{self._turns}"
        if request_id == "":
            request_id = f"duplex-s-turn{self._turns}"
        self.engine_session.active_request_id = request_id
        self.tell("ResponseCreated", response_id=turn_id)
        return turn_id

    def stages_get(self, request_id: str, replica: int = 0) -> None:
        for pool in self.pools:
            request = self.state.requests.by_id.get(request_id)
            if request is not None:
                request.submitting(pool.stage_id, "cumulative", makes_audio=pool is self.pools[-1])
            self.state.requests.submitted(request_id, pool.stage_id, replica, None)

    def audio(self, turn_id: str, samples: int = RATE, **changes: Any) -> None:
        tone = [8000 if n // 25 % 2 else -8000 for n in range(samples)]
        sound = struct.pack(f"<{samples}h", *tone)
        usual = {
            "response_id": turn_id,
            "delta": base64.b64encode(sound).decode(),
            "format": "pcm16",
            "sample_rate_hz": RATE,
        }
        self.tell("AudioDelta", **usual | changes)

    def turn_ends(self, turn_id: str, status: str = "completed", reason: str | None = None) -> None:
        response = {"id": turn_id, "status": status, "status_details": {"reason": reason}}
        self.tell("ResponseDone", response_id=turn_id, response=response)

    def close(self, reason: str = "client_close", name: str = "SessionClosed") -> None:
        self.manager.runners.pop(self.session_id, None)
        self.tell(name, reason=reason)

    # What its client does

    def send(self, name: str, **fields: Any) -> Any:
        message = SimpleNamespace(session_id=self.session_id, command=shaped(name, **fields))
        return self.manager._dispatch_command(message)

    def speak(self, pieces: int = 5, **changes: Any) -> None:
        """Each piece takes the time that it lasts."""
        sound = b"\0\0" * (INPUT_RATE * PIECE_MILLISECONDS // 1000)
        for _ in range(pieces):
            self.clock.advance(PIECE_MILLISECONDS / 1000)
            usual = {"audio": sound, "format": "pcm16", "sample_rate_hz": None}
            self.send("AppendAudio", **usual | changes)

    def played(self, turn_id: str, milliseconds: Any) -> None:
        details = {"item_id": f"item_{turn_id}", "played_ms": milliseconds}
        self.tell("PlaybackAcknowledged", details=details)

    def ask_for(self, operation: str, *, ok: bool = True, **fields: Any) -> Any:
        error = fields.pop("error", None)
        message = SimpleNamespace(session_id=self.session_id, **fields)
        return asyncio.run(
            self.manager._put_result(message, operation=operation, ok=ok, error=error)
        )

    def shut_down(self) -> Any:
        return asyncio.run(self.manager.shutdown())
