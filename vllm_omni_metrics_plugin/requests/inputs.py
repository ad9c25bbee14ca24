"""What a stage was sent by other stages for one request: each payload, when it left and came.

The two ends are told by two processes, in any order. A long stream has thousands of payloads; kept
are the first ones, which its first packet depends on, and the latest, which its end depends on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

#: Payloads that are kept of a stage's input, at its beginning and at its end.
MOST_FIRST = MOST_LAST = 32


class Payload:
    """One payload that arrived; all times in monotonic seconds."""

    __slots__ = ("asked_at", "from_stage", "received_at", "sent_at")

    def __init__(self, from_stage: int) -> None:
        self.from_stage = from_stage
        #: When its sender began to serialize it and to hand it over.
        self.sent_at: float | None = None
        #: When its receiver called for it, the time it did get it.
        self.asked_at: float | None = None
        self.received_at: float | None = None


class Inputs:
    """The payloads that one stage received for a request. One thread writes, others read."""

    __slots__ = ("_first", "_half_known", "_last")

    def __init__(self) -> None:
        self._first: list[Payload] = []
        self._last: deque[Payload] = deque(maxlen=MOST_LAST)
        #: By key, those of which one end is known.
        self._half_known: dict[str, Payload] = {}

    def __len__(self) -> int:
        """How many payloads are remembered, whole and half known."""
        return len(self._first) + len(self._last) + len(self._half_known)

    def sent(self, key: str, from_stage: int, began_at: float) -> None:
        """A stage began to send a payload."""
        payload = self._half_known.pop(key, None)
        if payload is None or payload.received_at is None:
            self._wait(key, payload := Payload(from_stage))
        payload.sent_at = began_at

    def received(self, key: str, from_stage: int, asked_at: float, at: float) -> None:
        """This stage has a payload, for which it called at ``asked_at``."""
        payload = self._half_known.pop(key, None)
        if payload is None or payload.received_at is not None:
            self._wait(key, payload := Payload(from_stage))
        payload.asked_at, payload.received_at = asked_at, at
        if len(self._first) < MOST_FIRST:
            self._first.append(payload)
        else:
            self._last.append(payload)

    def latest(self, until: float) -> Payload | None:
        """The last that had arrived by then, of those that are kept."""
        latest: Payload | None = None
        for payload, at in self._arrived():
            if at <= until and (latest is None or at >= (latest.received_at or at)):
                latest = payload
        return latest

    def _arrived(self) -> Iterator[tuple[Payload, float]]:
        # Copies, as another thread may add some.
        for payload in chain(list(self._first), list(self._last)):
            if payload.received_at is not None:
                yield payload, payload.received_at

    def _wait(self, key: str, payload: Payload) -> None:
        self._half_known[key] = payload
        if len(self._half_known) > MOST_FIRST + MOST_LAST:
            del self._half_known[next(iter(self._half_known))]
