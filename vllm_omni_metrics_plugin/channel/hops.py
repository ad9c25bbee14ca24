"""Joining the two halves of a hop: what the sender's process saw, and what the receiver's saw.

Sender and receiver name the payload by the same key, so the two halves together say how long it was
under way. Who sent to whom is what the server knows: it gave the request to the replicas. A process
may know its own number, which holds where the server does not know the request. The hooks are
called here, once for each end of a hop.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from msgspec import structs

from vllm_omni_metrics_plugin.channel.frames import FailedHalf, ReceivedHalf, SentHalf
from vllm_omni_metrics_plugin.channel.frames import Half as AnyHalf
from vllm_omni_metrics_plugin.hooks import TransferFailed, TransferReceived, TransferSent

#: Halves that wait for their other half: so many of each, for so long.
MOST_WAITING = 16_384
LONGEST_WAIT_SECONDS = 600.0
#: A payload is lost once nobody has tried to send or to receive it for so long.
QUIET_SECONDS = 30.0
#: Joined hops that are remembered, for connectors whose payloads are taken by several receivers.
MOST_JOINED = 1_024

Key = tuple[int, int, str]
Known = TransferSent | TransferReceived | TransferFailed
Half = TypeVar("Half", SentHalf, ReceivedHalf, FailedHalf)


class Owner(Protocol):
    """What the server knows of the request that a payload belongs to."""

    request_id: str
    model_name: str | None

    def replica(self, stage: int) -> int | None:
        """Which replica of the stage was given it."""


#: Says whose a payload is, by its key, the stage that sent it and the one it is for.
OwnerOf = Callable[[str, int, int], Owner | None]


@dataclass(frozen=True, slots=True)
class _Seen(Generic[Half]):
    """A half, and when it came, in monotonic seconds."""

    at: float
    half: Half
    #: None if the engine is not known by name.
    model_name: str | None
    #: None if it is not known whose the payload is.
    request_id: str | None = None


def _nobodys(_key: str, _from_stage: int, _to_stage: int) -> Owner | None:
    return None


class Transfers:
    """The hops of this server's pipelines. Any thread may report."""

    def __init__(self, hooks: Any, owner_of: OwnerOf = _nobodys) -> None:
        """``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`."""
        self._hooks = hooks
        self._owner_of = owner_of
        #: The ``model_name`` label of payloads whose request is not known; None where there is
        #: none or several engines in this process that they can belong to.
        self.model_name: str | None = None
        self._lock = threading.Lock()
        self._sent: OrderedDict[Key, _Seen[SentHalf]] = OrderedDict()
        self._received: OrderedDict[Key, _Seen[ReceivedHalf]] = OrderedDict()
        #: By the last attempt, the oldest first.
        self._failed: OrderedDict[Key, _Seen[FailedHalf]] = OrderedDict()
        self._joined: OrderedDict[Key, _Seen[SentHalf]] = OrderedDict()

    def report(self, half: AnyHalf) -> None:
        """One half of a hop became known; the hooks are called when both are, or never will be."""
        with self._lock:
            known: list[Known] = []
            if isinstance(half, SentHalf):
                known += self._with_sent(half)
            elif isinstance(half, ReceivedHalf):
                known += self._with_received(half)
            else:
                self._with_failed(half)
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
            known: list[Known] = [self._sent_event(seen) for seen in self._sent.values()]
            known += [self._received_event(seen) for seen in self._received.values()]
            known += [self._failed_event(seen) for seen in self._failed.values()]
            self._sent.clear()
            self._received.clear()
            self._failed.clear()
        self._call_hooks(known)

    def _with_sent(self, half: SentHalf) -> list[Known]:
        key = _key(half)
        sent = self._see(half)
        failed = self._failed.get(key)
        if failed is not None and failed.half.operation == "send":
            del self._failed[key]  # an attempt that failed, and was made again
        waiting = self._received.pop(key, None)
        if waiting is not None:
            return self._join(key, sent, waiting)
        earlier = self._sent.pop(key, None)  # sent anew before it was taken
        self._sent[key] = sent
        return [self._sent_event(earlier)] if earlier else []

    def _with_received(self, half: ReceivedHalf) -> list[Known]:
        key = _key(half)
        received = self._see(half)
        self._failed.pop(key, None)
        waiting = self._sent.pop(key, None)
        if waiting is not None:
            return self._join(key, waiting, received)
        joined = self._joined.get(key)
        if joined is not None:
            return [self._received_event(received, joined)]
        earlier = self._received.pop(key, None)
        self._received[key] = received
        return [self._received_event(earlier)] if earlier else []

    def _with_failed(self, half: FailedHalf) -> None:
        key = _key(half)
        if key in self._joined or key in self._received:
            return  # it came all the same
        failed = self._see(half)
        before = self._failed.pop(key, None)
        if before is not None and before.half.operation == "send":
            failed = _Seen(failed.at, before.half, before.model_name)  # why it was not received
        self._failed[key] = failed

    def _join(self, key: Key, sent: _Seen[SentHalf], received: _Seen[ReceivedHalf]) -> list[Known]:
        # What was not known yet when the first half came may be known now.
        sent, received = self._see_again(sent), self._see_again(received)
        model_name = sent.model_name or received.model_name
        request_id = sent.request_id or received.request_id
        sent = replace(sent, model_name=model_name, request_id=request_id)
        received = replace(received, model_name=model_name, request_id=request_id)
        self._joined[key] = sent
        if len(self._joined) > MOST_JOINED:
            self._joined.popitem(last=False)
        return [
            self._sent_event(sent, received.half.to_replica),
            self._received_event(received, sent),
        ]

    def _outdated(self) -> list[Known]:
        now = time.monotonic()
        known: list[Known] = []
        for sent in _oldest(self._sent, now - LONGEST_WAIT_SECONDS):
            known.append(self._sent_event(sent))
        for received in _oldest(self._received, now - LONGEST_WAIT_SECONDS):
            known.append(self._received_event(received))
        for failed in _oldest(self._failed, now - QUIET_SECONDS):
            known.append(self._failed_event(failed))
        return known

    def _see(self, half: Half) -> _Seen[Half]:
        """The half, with what the server knows of it."""
        now = time.monotonic()
        owner = self._owner_of(half.key, half.from_stage, half.to_stage)
        if owner is None:
            return _Seen(now, half, self.model_name)
        field, stage = _own_side(half)
        replica = owner.replica(stage)
        if replica is not None:
            half = structs.replace(half, **{field: replica})
        return _Seen(now, half, owner.model_name or self.model_name, owner.request_id)

    def _see_again(self, seen: _Seen[Half]) -> _Seen[Half]:
        again = self._see(seen.half)
        # The request may be forgotten by now.
        return _Seen(
            seen.at,
            again.half,
            seen.model_name or again.model_name,
            seen.request_id or again.request_id,
        )

    def _sent_event(self, seen: _Seen[SentHalf], to_replica: int | None = None) -> TransferSent:
        sent = seen.half
        return TransferSent(
            model_name=seen.model_name,
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
            request_id=seen.request_id,
        )

    def _received_event(
        self, seen: _Seen[ReceivedHalf], joined: _Seen[SentHalf] | None = None
    ) -> TransferReceived:
        received, sent = seen.half, joined.half if joined is not None else None
        in_flight, duration = None, received.duration_seconds
        if sent is not None and sent.clock == received.clock:
            in_flight = max(0.0, received.received_at - duration - sent.sent_at)
            # A receiver that was there before the sender waited for it, and received nothing. The
            # end of the put says less: the payload can be taken before the put has returned.
            since_put = received.received_at - (sent.sent_at - sent.duration_seconds)
            if 0.0 < since_put < duration:
                duration = since_put
        return TransferReceived(
            model_name=seen.model_name,
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
            request_id=seen.request_id,
        )

    def _failed_event(self, seen: _Seen[FailedHalf]) -> TransferFailed:
        failed = seen.half
        return TransferFailed(
            model_name=seen.model_name,
            from_stage=failed.from_stage,
            to_stage=failed.to_stage,
            operation=failed.operation,
            replica=failed.replica,
            key=failed.key,
            connector=failed.connector,
            reason=failed.reason,
        )

    def _call_hooks(self, known: list[Known]) -> None:
        for event in known:
            if isinstance(event, TransferSent):
                hook = self._hooks.omni_transfer_sent
            elif isinstance(event, TransferReceived):
                hook = self._hooks.omni_transfer_received
            else:
                hook = self._hooks.omni_transfer_failed
            if hook.listeners:
                hook(event)


def _key(half: AnyHalf) -> Key:
    return (half.from_stage, half.to_stage, half.key)


def _own_side(half: AnyHalf) -> tuple[str, int]:
    """The field with the replica of the process that reports, and its stage."""
    if isinstance(half, SentHalf):
        return "from_replica", half.from_stage
    if isinstance(half, ReceivedHalf):
        return "to_replica", half.to_stage
    return "replica", half.from_stage if half.operation == "send" else half.to_stage


def _oldest(waiting: OrderedDict[Key, _Seen[Half]], since: float) -> Iterator[_Seen[Half]]:
    """Takes out those that came before ``since``, and those for which there is no place."""
    while waiting:
        key, seen = next(iter(waiting.items()))
        if len(waiting) <= MOST_WAITING and seen.at > since:
            return
        del waiting[key]
        yield seen
