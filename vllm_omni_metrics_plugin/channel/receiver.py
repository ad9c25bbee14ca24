"""Receiving events in the server: checking what comes, counting what does not, passing it on."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel import frames
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint
from vllm_omni_metrics_plugin.channel.frames import MOST_BYTES, Frame, FrameError, WireEvent
from vllm_omni_metrics_plugin.hooks import EventsDropped

logger = logging.getLogger("vllm.omni_metrics")

_MOST_FRAMES = 64
#: Beyond this the transport itself hangs up on the sender.
_MOST_TRANSPORT_BYTES = 16 * MOST_BYTES
#: Senders whose counts are remembered; a server has a few.
_MOST_SENDERS = 1_024
_TICK_MILLISECONDS = 500
#: Rest for so many times as long as a frame took, so that no flood of events slows the requests
#: down: what does not fit is dropped by its sender.
_REST = 4.0
_JOIN_SECONDS = 5.0


class Receiver:
    """Listens from :meth:`start` to :meth:`close`, on a thread of its own."""

    def __init__(
        self,
        endpoint: Endpoint,
        hooks: Any,
        deliver: Callable[[WireEvent], None],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        """``deliver`` gets each event, ``idle`` is called about twice a second.

        ``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`; they are
        told of events that do not arrive.
        """
        self._endpoint = endpoint
        self._events_dropped = hooks.omni_events_dropped
        self._deliver = deliver
        self._idle = idle
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: By sender: how many events it had sent, and dropped, as of its last frame; its errors.
        self._senders: OrderedDict[str, tuple[int, int, Mapping[str, int]]] = OrderedDict()

    def start(self) -> None:
        """Begin to listen; does nothing when it does already. Logs what keeps it from it."""
        if self._thread is not None:
            return
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.PULL)
        socket.linger = 0
        socket.rcvhwm = _MOST_FRAMES
        socket.maxmsgsize = _MOST_TRANSPORT_BYTES
        authenticator = None
        try:
            if self._endpoint.key_file is not None:
                authenticator = _only_holders_of(context, self._endpoint.key_file)
            self._endpoint.bind(socket)
        except (OSError, ValueError) as error:
            logger.warning(
                "omni-metrics: cannot listen for the stage engines' events at %s (%s); "
                "no samples of transfers",
                self._endpoint.address,
                error,
            )
            if authenticator is not None:
                authenticator.stop()
            context.destroy(linger=0)
            return
        self._thread = threading.Thread(
            target=self._run,
            args=(context, socket, authenticator),
            name="omni-metrics-receiver",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Take what has arrived, then stop listening and remove the socket's files."""
        if self._thread is None or self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        authenticator: ThreadAuthenticator | None,
    ) -> None:
        try:
            while True:
                closing = self._closing.is_set()
                while socket.poll(0 if closing else _TICK_MILLISECONDS):
                    began = time.monotonic()
                    self.take(socket.recv())
                    closing = closing or self._closing.is_set()
                    if not closing:
                        time.sleep(_REST * (time.monotonic() - began))
                with internal_errors.suppressed("an event of another process"):
                    self._idle()
                if closing:
                    return
        except Exception as error:
            internal_errors.report("receiving events of other processes", error)
        finally:
            if authenticator is not None:
                authenticator.stop()
            context.destroy(linger=0)
            self._endpoint.remove()

    def take(self, data: bytes) -> None:
        """One message came; never raises."""
        if len(data) > MOST_BYTES:
            self._drop("oversized", 1)
            return
        try:
            frame = frames.decode(data)
        except FrameError:
            self._drop("garbage", 1)
            return
        self._count(frame)
        for event in frame.events:
            with internal_errors.suppressed("an event of another process"):
                self._deliver(event)

    def _count(self, frame: Frame) -> None:
        expected, dropped, errors = self._senders.pop(frame.sender, (frame.first, 0, {}))
        self._senders[frame.sender] = (frame.first + len(frame.events), frame.dropped, frame.errors)
        if len(self._senders) > _MOST_SENDERS:
            self._senders.popitem(last=False)
        self._drop("lost", frame.first - expected)
        self._drop("queue_full", frame.dropped - dropped)
        for place, count in frame.errors.items():
            if count > errors.get(place, 0):
                internal_errors.errors.add(place, count - errors.get(place, 0))

    def _drop(self, reason: str, count: int) -> None:
        if count > 0 and self._events_dropped.listeners:
            self._events_dropped(EventsDropped(reason=reason, count=count))


def _only_holders_of(context: zmq.Context[zmq.Socket[bytes]], key_file: str) -> ThreadAuthenticator:
    public, _ = zmq.auth.load_certificate(key_file)

    class Holders:
        def callback(self, domain: str, key: bytes) -> bool:
            return key == public

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", credentials_provider=Holders())
    return authenticator
