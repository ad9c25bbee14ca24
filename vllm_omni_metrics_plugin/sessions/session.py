"""One session: its turns, one at a time but for those whose audio is still playing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

from vllm_omni_metrics_plugin.hooks import BargeIn, SessionAttachment, SessionClosed, SessionOpened
from vllm_omni_metrics_plugin.requests import OpenRequests
from vllm_omni_metrics_plugin.sessions.speech import Speech
from vllm_omni_metrics_plugin.sessions.turn import Turn
from vllm_omni_metrics_plugin.sessions.voice import Voice

#: Turns that are over and of whose audio it is not certain what became.
_MOST_PLAYING = 4
#: How a turn ends that goes on when its session ends, by the session's reason.
_CUT_SHORT = {"client": "close", "disconnect": "abort", "idle": "abort", "shutdown": "abort"}
#: How a turn ends whose client plays no more of it.
_STOPPED = ("barge_in", "cancel", "close")

Cause = Literal["speech", "client"]


class Session:
    """From its opening to its end."""

    __slots__ = (
        "_interruption",
        "_model_name",
        "_open",
        "_opened_at",
        "_playing",
        "_requests",
        "_turns",
        "attached",
        "session_id",
        "speech",
        "voice",
    )

    def __init__(self, requests: OpenRequests, session_id: str, model_name: str) -> None:
        self.speech = Speech()
        self.voice = Voice(requests.hooks, session_id, model_name)
        self.attached = True
        self._requests = requests
        self.session_id = session_id
        self._model_name = model_name
        self._opened_at = time.monotonic()
        self._open: dict[str, Turn] = {}
        self._playing: OrderedDict[str, Turn] = OrderedDict()
        #: How many began.
        self._turns = 0
        #: What may interrupt a turn, and when it came.
        self._interruption: tuple[Cause, float] | None = None
        if requests.hooks.omni_session_opened.listeners:
            requests.hooks.omni_session_opened(
                SessionOpened(
                    session_id=session_id, model_name=model_name, opened_at=self._opened_at
                )
            )

    def attach(self, attached: bool) -> None:
        """The client is gone, or is back; nothing if that is known."""
        if attached == self.attached:
            return
        self.attached = attached
        if self._requests.hooks.omni_session_attachment.listeners:
            self._requests.hooks.omni_session_attachment(
                SessionAttachment(
                    session_id=self.session_id, model_name=self._model_name, attached=attached
                )
            )

    def turn_starts(
        self, turn_id: str, request_id: str | None, modalities: tuple[str, ...]
    ) -> None:
        """The engine begins to answer."""
        if turn_id not in self._open:
            self._turns += 1
            self._open[turn_id] = Turn(
                self._requests,
                self.session_id,
                turn_id,
                request_id,
                self._model_name,
                self.speech.answered(),
                modalities,
            )

    def audio(
        self, turn_id: str | None, payload: Mapping[str, Any], stage: int, replica: int | None
    ) -> None:
        """Some audio of a turn leaves for the client, as :meth:`Turn.audio` says."""
        turn = self._open.get(turn_id or "")
        if turn is not None:
            turn.audio(payload, stage, replica)

    def interrupts(self, cause: Cause) -> None:
        """The user speaks, or the client says that it does; perhaps over an answer."""
        self._interruption = (cause, time.monotonic())

    def turn_ends(self, turn_id: str | None, outcome: str, cause: Cause | None = None) -> None:
        """The engine answers no more; ``cause`` of a barge-in."""
        turn = self._open.pop(turn_id or "", None)
        if turn is None:
            return
        self._finish(turn, outcome)
        if cause is not None:
            self._barged_in(turn, cause, generating=True)
        if turn.samples:
            self._playing[turn.turn_id] = turn
            self._settle_played(turn)
            if len(self._playing) > _MOST_PLAYING:
                self._playing.popitem(last=False)[1].settle(self._requests.hooks)

    def is_cleared(self, turn_id: str | None) -> None:
        """The client is told to play no more of a turn; of one that is generated, it says more."""
        turn = self._playing.get(turn_id or "")
        if turn is None or turn.interrupted or not turn.may_be_playing:
            return
        turn.interrupted = True
        if self._interruption is not None:
            self._barged_in(turn, self._interruption[0], generating=False)

    def is_played(self, turn_id: str, milliseconds: int) -> None:
        """The client has played so much of a turn."""
        turn = self._open.get(turn_id) or self._playing.get(turn_id)
        if turn is not None:
            turn.played(milliseconds)
            self._settle_played(turn)

    def end(self, reason: str) -> None:
        """It is over, for one of the reasons of :class:`SessionClosed`."""
        hooks = self._requests.hooks
        for turn in list(self._open.values()):
            self.turn_ends(turn.turn_id, _CUT_SHORT.get(reason, "error"))
        for turn in self._playing.values():
            turn.settle(hooks, unheard=not self.attached)
        self._playing.clear()
        self.voice.detect(False)
        if hooks.omni_session_closed.listeners:
            hooks.omni_session_closed(
                SessionClosed(
                    session_id=self.session_id,
                    model_name=self._model_name,
                    reason=reason,
                    duration_seconds=time.monotonic() - self._opened_at,
                    turns=self._turns,
                    attached=self.attached,
                )
            )

    def _finish(self, turn: Turn, outcome: str) -> None:
        turn.detached = not self.attached
        turn.interrupted = outcome in _STOPPED
        turn.finish(outcome, self._requests)

    def _settle_played(self, turn: Turn) -> None:
        if turn.is_played and self._playing.pop(turn.turn_id, None) is not None:
            turn.settle(self._requests.hooks)

    def _barged_in(self, turn: Turn, cause: Cause, *, generating: bool) -> None:
        interruption, self._interruption = self._interruption, None
        at = interruption[1] if interruption is not None and interruption[0] == cause else None
        if self._requests.hooks.omni_barge_in.listeners:
            self._requests.hooks.omni_barge_in(
                BargeIn(
                    session_id=self.session_id,
                    turn_id=turn.turn_id,
                    model_name=self._model_name,
                    cause=cause,
                    reaction_seconds=None if at is None else time.monotonic() - at,
                    generating=generating,
                )
            )
