"""Whether the server listens for speech in a session, and how that goes."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.hooks import VoiceDetection, VoiceFailed, VoiceScored


class Piece:
    """What it took to listen to a piece of sound.

    The thread that listens writes it; the session's reads it when that is done.
    """

    __slots__ = ("inference_seconds", "load_seconds")

    def __init__(self) -> None:
        #: Of each frame that was scored.
        self.inference_seconds: list[float] = []
        #: To get the model; None unless that was to be done.
        self.load_seconds: float | None = None


class Voice:
    """Keeps no sound and no time; whether somebody is listened to, alone."""

    __slots__ = ("_hooks", "_model_name", "_session_id", "is_detected")

    def __init__(self, hooks: Any, session_id: str, model_name: str) -> None:
        self.is_detected = False
        self._hooks = hooks
        self._session_id = session_id
        self._model_name = model_name

    def detect(self, active: bool) -> None:
        """The server listens for speech from now on, or no more; nothing if that is known."""
        if active == self.is_detected:
            return
        self.is_detected = active
        if self._hooks.omni_voice_detection.listeners:
            self._hooks.omni_voice_detection(
                VoiceDetection(
                    session_id=self._session_id, model_name=self._model_name, active=active
                )
            )

    def scored(self, piece: Piece, probability: float, speaking: bool) -> None:
        """The detector has listened to a piece; nothing if no frame of it was full."""
        if piece.inference_seconds and self._hooks.omni_voice_scored.listeners:
            self._hooks.omni_voice_scored(
                VoiceScored(
                    session_id=self._session_id,
                    model_name=self._model_name,
                    inference_seconds=tuple(piece.inference_seconds),
                    load_seconds=piece.load_seconds,
                    probability=probability,
                    speaking=speaking,
                )
            )

    def fail(self, reason: str) -> None:
        """It could not listen, for one of the reasons of :class:`VoiceFailed`."""
        if self._hooks.omni_voice_failed.listeners:
            self._hooks.omni_voice_failed(
                VoiceFailed(session_id=self._session_id, model_name=self._model_name, reason=reason)
            )
