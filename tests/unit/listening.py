"""An engine's voice detector in the shapes of its own classes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.unit.conversation import Conversation, with_patches
from vllm_omni_metrics_plugin.patches.state import EngineState

#: How long a frame takes, and the model that the first one waits for.
FRAME_SECONDS = 0.0005
LOAD_SECONDS = 0.75


class ServerVADUnavailableError(RuntimeError):
    """There is no model to be had."""


class SileroStreamingVAD:
    """Listens to so many frames as the piece says."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._backend: object = None
        #: What the engine raises instead, by frame.
        self.raises: dict[int, Exception] = {}
        self.has_no_model = False
        self.frames = 0

    def process(self, count: int) -> SimpleNamespace:
        scores = [self._score_frame(object()) for _ in range(count)]
        best = max(scores, default=0.0)
        return SimpleNamespace(speech_probability=best, speech_active=best > 0.5)

    def _score_frame(self, frame: object) -> float:
        self._require_backend()
        self._clock.advance(FRAME_SECONDS)
        self.frames += 1
        if self.frames in self.raises:
            raise self.raises[self.frames]
        return 1 - 1 / (self.frames + 1)

    def _require_backend(self) -> object:
        if self._backend is None:
            if self.has_no_model:
                raise ServerVADUnavailableError
            self._clock.advance(LOAD_SECONDS)
            self._backend = "model"
        return self._backend


class SessionControl:
    """As the engine's, it tells the client of some errors, and raises others."""

    def __init__(self, talk: Conversation, detector: Any) -> None:
        self._ctx = SimpleNamespace(
            manager=talk.manager, session=SimpleNamespace(session_id=talk.session_id)
        )
        self._talk = talk
        self._detector = detector

    async def run_turn_detection(self, event: dict[str, Any]) -> Any:
        detector = self._detector
        if detector is None or not event.get("audio"):
            return None
        try:
            return await asyncio.to_thread(detector.vad.process, event["audio"])
        except ServerVADUnavailableError:
            self._talk.tell("ErrorEvent", code="server_vad_unavailable")
            self._detector = None
        except ValueError:
            self._talk.tell("ErrorEvent", code="bad_audio")
        return None


class Listening(Conversation):
    """A session in which the server listens for speech."""

    def __init__(self, state: EngineState, clock: Any, **fields: Any) -> None:
        super().__init__(state, clock, **fields)
        self.vad = with_patches(SileroStreamingVAD, state)(clock)
        self.control = with_patches(SessionControl, state)(self, SimpleNamespace(vad=self.vad))
        self.detector = self.control._detector

    def open(self) -> None:
        super().open()
        self.manager.runners[self.session_id].control = self.control

    def hear(self, frames: int) -> Any:
        """The server listens to a piece with so many full frames; what it makes of them."""
        return asyncio.run(self.hears(frames))

    async def hears(self, frames: int) -> Any:
        return await self.control.run_turn_detection({"audio": frames})

    def change(self, detector: Any) -> None:
        """The client updates the session, and the engine takes that up."""
        self.control._detector = detector
        self.tell("SessionUpdated")
