"""Sending events from a stage engine's process. The engine's threads only append to a queue."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Mapping

import zmq

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel import frames
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint
from vllm_omni_metrics_plugin.channel.frames import MOST_EVENTS, Frame, WireEvent

logger = logging.getLogger("vllm.omni_metrics")

#: Events that wait for the sending thread, at most.
MOST_WAITING = 10_000
#: Frames that wait in the socket, at most.
_MOST_FRAMES = 64
_RETRY_MILLISECONDS = 100
_FLUSH_SECONDS = 2.0
#: After this long the sending thread begins anew where an error ended it.
_RESTART_SECONDS = 1.0


class _Wake:
    """Has the sending thread look at the internal errors."""


_WAKE = _Wake()


class Sender:
    """Sends what its process reports. It never blocks its callers, and never raises."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """Threads and sockets do not survive a fork; a child is a sender of its own."""
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._waiting: queue.SimpleQueue[WireEvent | _Wake | None] = queue.SimpleQueue()
        self._count = threading.Lock()
        #: Events so far that found no place, that a frame could not hold, and that were sent.
        self._dropped = self._unsendable = self._sent = 0
        #: What the last frame said: dropped, unsendable, errors.
        self._told: tuple[int, int, Mapping[str, int]] = (0, 0, {})
        self._thread: threading.Thread | None = None
        self._close_by: float | None = None
        self._closing = threading.Event()

    def send(self, event: WireEvent) -> None:
        """Put the event on its way, or drop and count it where too many wait."""
        if self._waiting.qsize() >= MOST_WAITING or self._close_by is not None:
            with self._count:
                self._dropped += 1
            return
        self._waiting.put(event)
        if self._thread is None:
            self._start()

    def send_errors(self) -> None:
        """There are new internal errors to send the counts of."""
        if self._waiting.empty() and self._close_by is None:
            self._waiting.put(_WAKE)
            if self._thread is None:
                self._start()

    def close(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Send what waits, for so long at most."""
        thread = self._thread
        if thread is None or self._close_by is not None:
            return
        self._close_by = time.monotonic() + seconds
        self._waiting.put(None)
        self._closing.set()
        thread.join(seconds + 1.0)

    def _start(self) -> None:
        with self._count:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="omni-metrics-sender", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        warned = False
        while True:
            try:
                with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
                    socket.sndhwm = _MOST_FRAMES
                    socket.sndtimeo = _RETRY_MILLISECONDS
                    socket.linger = int(1000 * _FLUSH_SECONDS)
                    self._endpoint.connect(socket)
                    self._send_all(socket)
                return
            except (OSError, ValueError, zmq.ZMQError) as error:
                if not warned:
                    logger.warning(
                        "omni-metrics: cannot send events to the server at %s (%s); "
                        "no samples of this process's transfers until it can",
                        self._endpoint.address,
                        error,
                    )
                warned = True
            except Exception as error:
                internal_errors.report("sending events to the server", error)
            if self._closing.wait(_RESTART_SECONDS):
                return

    def _send_all(self, socket: zmq.Socket[bytes]) -> None:
        open_ = True
        while open_:
            events: list[WireEvent] = []
            item = self._waiting.get()
            while item is not None:
                if not isinstance(item, _Wake):
                    events.append(item)
                if len(events) == MOST_EVENTS or self._waiting.empty():
                    break
                item = self._waiting.get()
            open_ = item is not None
            try:
                if not self._send(socket, events):
                    return
            except BaseException:
                self._unsendable += len(events)
                raise

    def _send(self, socket: zmq.Socket[bytes], events: list[WireEvent]) -> bool:
        """False if the time to close came first."""
        try:
            told, data = self._encode(events)
        except Exception:  # one of the events has no form on the wire
            sendable = [event for event in events if frames.can_be_sent(event)]
            self._unsendable += len(events) - len(sendable)
            events[:] = sendable
            told, data = self._encode(events)
        if (events or told != self._told) and not self._push(socket, data):
            return False
        self._sent, self._told = self._sent + len(events), told
        return True

    def _encode(self, events: list[WireEvent]) -> tuple[tuple[int, int, dict[str, int]], bytes]:
        told = (self._dropped, self._unsendable, internal_errors.errors.counts())
        dropped, unsendable, errors = told
        frame = Frame(self._name, self._sent, dropped, events, errors, unsendable)
        return told, frames.encode(frame)

    def _push(self, socket: zmq.Socket[bytes], data: bytes) -> bool:
        """False if the time to close came before the frame found a place."""
        while self._close_by is None or time.monotonic() < self._close_by:
            with contextlib.suppress(zmq.Again):
                socket.send(data)
                return True
        return False
