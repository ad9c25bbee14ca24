"""Joining the two halves of a hop: what the sender's process saw, and what the receiver's saw.

Each stage engine knows its own replica and not its peer's. Sender and receiver name the payload by
the same key, so the two halves together say who sent to whom, and how long it was under way. The
request may be long over by then. The hooks are called here, once for each end of a hop.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

from vllm_omni_metrics_plugin.channel.frames import FailedHalf, ReceivedHalf, SentHalf, WireEvent
from vllm_omni_metrics_plugin.hooks import TransferFailed, TransferReceived, TransferSent

#: Halves that wait for their other half: so many of each, for so long.
MOST_WAITING = 16_384
LONGEST_WAIT_SECONDS = 600.0
#: Joined hops that are remembered, for connectors whose payloads are taken by several receivers.
MOST_JOINED = 1_024

Key = tuple[int, int, str]
Hop = TransferSent | TransferReceived
Half = TypeVar("Half", SentHalf, ReceivedHalf)


class Transfers:
    """The hops of this server's pipeline. Any thread may report."""

    def __init__(self, hooks: Any) -> None:
        """``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`."""
        self._hooks = hooks
        #: The ``model_name`` label of the engine that runs in this process.
        self.model_name: str | None = None
        self._lock = threading.Lock()
        self._sent: OrderedDict[Key, tuple[float, SentHalf]] = OrderedDict()
        self._received: OrderedDict[Key, tuple[float, ReceivedHalf]] = OrderedDict()
        self._joined: OrderedDict[Key, SentHalf] = OrderedDict()

    def report(self, half: WireEvent) -> None:
        """One half of a hop became known; the hooks are called when both are, or never will be."""
        if isinstance(half, FailedHalf):
            self._fail(half)
            return
        with self._lock:
            if isinstance(half, SentHalf):
                known = self._with_sent(half)
            else:
                known = self._with_received(half)
            known += self._outdated()
        self._call_hooks(known)

    def forget_outdated(self) -> None:
        """Give up the halves that have waited too long; called now and then."""
        with self._lock:
            known = self._outdated()
        self._call_hooks(known)

    def forget_all(self) -> None:
        """Give up all halves that wait, since nothing will follow any more."""
        with self._lock:
            known: list[Hop] = [self._sent_event(half) for _, half in self._sent.values()]
            known += [self._received_event(half) for _, half in self._received.values()]
            self._sent.clear()
            self._received.clear()
        self._call_hooks(known)

    def _with_sent(self, sent: SentHalf) -> list[Hop]:
        key = (sent.from_stage, sent.to_stage, sent.key)
        waiting = self._received.pop(key, None)
        if waiting is not None:
            return self._join(key, sent, waiting[1])
        earlier = self._sent.pop(key, None)  # sent anew before it was taken
        self._sent[key] = (time.monotonic(), sent)
        return [self._sent_event(earlier[1])] if earlier else []

    def _with_received(self, received: ReceivedHalf) -> list[Hop]:
        key = (received.from_stage, received.to_stage, received.key)
        waiting = self._sent.pop(key, None)
        if waiting is not None:
            return self._join(key, waiting[1], received)
        joined = self._joined.get(key)
        if joined is not None:
            return [self._received_event(received, joined)]
        earlier = self._received.pop(key, None)
        self._received[key] = (time.monotonic(), received)
        return [self._received_event(earlier[1])] if earlier else []

    def _join(self, key: Key, sent: SentHalf, received: ReceivedHalf) -> list[Hop]:
        self._joined[key] = sent
        if len(self._joined) > MOST_JOINED:
            self._joined.popitem(last=False)
        return [
            self._sent_event(sent, received.to_replica),
            self._received_event(received, sent),
        ]

    def _outdated(self) -> list[Hop]:
        now = time.monotonic()
        known: list[Hop] = [self._sent_event(half) for half in _oldest(self._sent, now)]
        known += [self._received_event(half) for half in _oldest(self._received, now)]
        return known

    def _sent_event(self, sent: SentHalf, to_replica: int | None = None) -> TransferSent:
        return TransferSent(
            model_name=self.model_name,
            from_stage=sent.from_stage,
            from_replica=sent.from_replica,
            to_stage=sent.to_stage,
            to_replica=to_replica,
            key=sent.key,
            connector=sent.connector,
            size_bytes=sent.size_bytes,
            duration_seconds=sent.duration_seconds,
            sent_at=sent.sent_at,
            clock=sent.clock,
        )

    def _received_event(
        self, received: ReceivedHalf, sent: SentHalf | None = None
    ) -> TransferReceived:
        in_flight, duration = None, received.duration_seconds
        if sent is not None and sent.clock == received.clock:
            in_flight = max(0.0, received.received_at - duration - sent.sent_at)
            # A receiver that was there before the sender waited for it, and received nothing. The
            # end of the put says less: the payload can be taken before the put has returned.
            since_put = received.received_at - (sent.sent_at - sent.duration_seconds)
            if 0.0 < since_put < duration:
                duration = since_put
        return TransferReceived(
            model_name=self.model_name,
            from_stage=received.from_stage,
            from_replica=sent.from_replica if sent is not None else None,
            to_stage=received.to_stage,
            to_replica=received.to_replica,
            key=received.key,
            connector=received.connector,
            size_bytes=received.size_bytes,
            duration_seconds=duration,
            received_at=received.received_at,
            in_flight_seconds=in_flight,
            clock=received.clock,
        )

    def _fail(self, failed: FailedHalf) -> None:
        if self._hooks.omni_transfer_failed.listeners:
            self._hooks.omni_transfer_failed(
                TransferFailed(
                    model_name=self.model_name,
                    from_stage=failed.from_stage,
                    to_stage=failed.to_stage,
                    operation=failed.operation,
                    replica=failed.replica,
                    key=failed.key,
                    connector=failed.connector,
                    reason=failed.reason,
                )
            )

    def _call_hooks(self, hops: list[Hop]) -> None:
        for hop in hops:
            sent = isinstance(hop, TransferSent)
            hook = self._hooks.omni_transfer_sent if sent else self._hooks.omni_transfer_received
            if hook.listeners:
                hook(hop)


def _oldest(waiting: OrderedDict[Key, tuple[float, Half]], now: float) -> Iterator[Half]:
    while waiting:
        key, (since, half) = next(iter(waiting.items()))
        if len(waiting) <= MOST_WAITING and now - since < LONGEST_WAIT_SECONDS:
            return
        del waiting[key]
        yield half
