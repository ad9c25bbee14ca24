"""What the user of a session says, as far as it decides since when an answer is waited for."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks.events import Origin

#: Pieces of which it is remembered when they came; those of a minute, at ten a second.
_MOST_PIECES = 600


class Asked(NamedTuple):
    """Since when the user waits for an answer, in monotonic seconds."""

    origin: Origin
    #: None where nobody asked.
    at: float | None
    #: The last piece with speech in it came; None where nobody spoke, or that is not known.
    heard_at: float | None = None
    #: An earlier answer was to be completed first.
    deferred: bool = False


class _Stopped(NamedTuple):
    """The server heard the end of speech."""

    item_id: str | None
    at: float
    heard_at: float | None


class Speech:
    """Keeps times alone, and of a bounded number of pieces."""

    __slots__ = ("_asked", "_commit", "_milliseconds", "_pieces", "_requested_at", "_stopped")

    def __init__(self) -> None:
        self._milliseconds = 0.0
        #: By how much had come with each piece, when it came.
        self._pieces: deque[tuple[float, float]] = deque(maxlen=_MOST_PIECES)
        self._stopped: _Stopped | None = None
        #: The client's word that this was all, which the engine has not taken up.
        self._commit: Asked | None = None
        self._asked: Asked | None = None
        self._requested_at: float | None = None

    def comes(self, milliseconds: float) -> None:
        """A piece with so much sound."""
        self._milliseconds += milliseconds
        self._pieces.append((self._milliseconds, time.monotonic()))

    def stops(self, item_id: str | None, end_milliseconds: float) -> None:
        """The server heard the end of speech, which is so far into all that came."""
        heard_at = next((at for end, at in self._pieces if end >= end_milliseconds), None)
        self._stopped = _Stopped(item_id, time.monotonic(), heard_at)

    def commits(self) -> None:
        """The client says that this was all."""
        last = self._pieces[-1][1] if self._pieces else None
        self._commit = Asked("commit", time.monotonic(), last)

    def is_refused(self) -> None:
        """The engine does not do what it was told last."""
        self._commit = None

    def is_committed(self, item_id: str | None, *, deferred: bool) -> None:
        """The engine takes what was said for a turn of the user's."""
        stopped, commit = self._stopped, self._commit
        if commit is not None:
            asked = commit
        elif stopped is not None and stopped.item_id == item_id:
            asked = Asked("speech", stopped.at, stopped.heard_at)
        else:
            asked = Asked("commit", time.monotonic())
        self._asked = asked._replace(deferred=deferred)
        self._stopped = self._commit = None

    def is_ignored(self) -> None:
        """There was nothing in it to answer."""
        self._asked = None

    def requests(self) -> None:
        """The client asks for an answer."""
        self._requested_at = time.monotonic()

    def answered(self) -> Asked:
        """The engine begins to answer; what was asked for is done with."""
        asked, self._asked = self._asked, None
        requested_at, self._requested_at = self._requested_at, None
        if asked is None:
            asked = Asked("model" if requested_at is None else "request", requested_at)
        return asked
