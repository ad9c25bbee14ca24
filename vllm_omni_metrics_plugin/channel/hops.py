"""Joining the two halves of a hop: what the sender's process saw, and what the receiver's saw.

Each stage engine knows its own replica and not its peer's. Sender and receiver name the payload by
the same key, so the two halves together say who sent to whom, and how long it was under way. The
request may be long over by then.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeVar

from msgspec import structs

from vllm_omni_metrics_plugin.hooks import TransferReceived, TransferSent, plugins

#: Halves that wait for their other half: so many of each, for so long.
MOST_WAITING = 16_384
LONGEST_WAIT_SECONDS = 600.0
#: Joined hops that are remembered, for connectors whose payloads are taken by several receivers.
MOST_JOINED = 1_024

Key = tuple[int, int, str]
Hop = TransferSent | TransferReceived
Half = TypeVar("Half", TransferSent, TransferReceived)

_sent = plugins.hooks.omni_transfer_sent
_received = plugins.hooks.omni_transfer_received


class Transfers:
    """The hops of this server's pipeline. Any thread may report."""

    def __init__(self) -> None:
        #: The ``model_name`` label of the engine that runs in this process.
        self.model_name: str | None = None
        self._lock = threading.Lock()
        self._sent: OrderedDict[Key, tuple[float, TransferSent]] = OrderedDict()
        self._received: OrderedDict[Key, tuple[float, TransferReceived]] = OrderedDict()
        self._joined: OrderedDict[Key, TransferSent] = OrderedDict()

    def report(self, half: Hop) -> None:
        """One half of a hop became known; the hooks are called when both are, or never will be."""
        with self._lock:
            if isinstance(half, TransferSent):
                known = self._with_sent(half)
            else:
                known = self._with_received(half)
            known += self._outdated()
        self._tell(known)

    def forget_outdated(self) -> None:
        """Tell of the halves that have waited too long; called now and then."""
        with self._lock:
            known = self._outdated()
        self._tell(known)

    def forget_all(self) -> None:
        """Tell of all halves that wait, since nothing will follow any more."""
        with self._lock:
            known: list[Hop] = [half for _, half in self._sent.values()]
            known += [half for _, half in self._received.values()]
            self._sent.clear()
            self._received.clear()
        self._tell(known)

    def _with_sent(self, sent: TransferSent) -> list[Hop]:
        key = (sent.from_stage, sent.to_stage, sent.key)
        waiting = self._received.pop(key, None)
        if waiting is not None:
            return self._join(key, sent, waiting[1])
        earlier = self._sent.pop(key, None)  # sent anew before it was taken
        self._sent[key] = (time.monotonic(), sent)
        return [earlier[1]] if earlier else []

    def _with_received(self, received: TransferReceived) -> list[Hop]:
        key = (received.from_stage, received.to_stage, received.key)
        waiting = self._sent.pop(key, None)
        if waiting is not None:
            return self._join(key, waiting[1], received)
        joined = self._joined.get(key)
        if joined is not None:
            return [_completed(joined, received)]
        earlier = self._received.pop(key, None)
        self._received[key] = (time.monotonic(), received)
        return [earlier[1]] if earlier else []

    def _join(self, key: Key, sent: TransferSent, received: TransferReceived) -> list[Hop]:
        self._joined[key] = sent
        if len(self._joined) > MOST_JOINED:
            self._joined.popitem(last=False)
        return [
            structs.replace(sent, to_replica=received.to_replica),
            _completed(sent, received),
        ]

    def _outdated(self) -> list[Hop]:
        now = time.monotonic()
        known: list[Hop] = [*_oldest(self._sent, now)]
        known += _oldest(self._received, now)
        return known

    def _tell(self, hops: list[Hop]) -> None:
        for hop in hops:
            hook = _sent if isinstance(hop, TransferSent) else _received
            if hook.listeners:
                hook(structs.replace(hop, model_name=self.model_name))


def _completed(sent: TransferSent, received: TransferReceived) -> TransferReceived:
    if sent.clock != received.clock:
        return structs.replace(received, from_replica=sent.from_replica)
    waited = received.received_at - received.duration_seconds - sent.sent_at
    # A receiver that was there before the payload has received since the sender was done.
    taken = (
        max(0.0, received.received_at - sent.sent_at) if waited < 0 else received.duration_seconds
    )
    return structs.replace(
        received,
        from_replica=sent.from_replica,
        in_flight_seconds=max(0.0, waited),
        duration_seconds=taken,
    )


def _oldest(waiting: OrderedDict[Key, tuple[float, Half]], now: float) -> Iterator[Half]:
    while waiting:
        key, (since, half) = next(iter(waiting.items()))
        if len(waiting) <= MOST_WAITING and now - since < LONGEST_WAIT_SECONDS:
            return
        del waiting[key]
        yield half
