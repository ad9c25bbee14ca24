"""Receiving events in the server: checking what comes, counting what does not, passing it on."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
#: How long after a failure it tries to listen again.
_RETRY_SECONDS = 1.0


class _Told(NamedTuple):
    """What a sender had said as of its last frame."""

    #: Events, those included that were none.
    sent: int
    dropped: int
    unsendable: int
    errors: Mapping[str, int]


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
        self._open: _Open | None = None
        #: It was logged that it cannot listen.
        self._refused = False
        #: By sender.
        self._senders: OrderedDict[str, _Told] = OrderedDict()

    @property
    def listening(self) -> bool:
        return self._open is not None

    def start(self) -> None:
        """Begin to listen; does nothing when it has begun already.

        What keeps it from listening is logged, and it tries again until it can.
        """
        if self._thread is not None:
            return
        self._try_to_open()
        self._thread = threading.Thread(target=self._run, name="omni-metrics-receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take what has arrived, then stop listening and remove the socket's files."""
        if self._thread is None or self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(_JOIN_SECONDS)

    def _try_to_open(self) -> None:
        try:
            self._open = _Open(self._endpoint)
        except (OSError, ValueError, zmq.ZMQError) as error:
            if self._refused:
                return
            self._refused = True
            logger.warning(
                "omni-metrics: cannot listen for the stage engines' events at %s (%s); "
                "no samples of transfers until it can",
                self._endpoint.address,
                error,
            )
            # What is sent meanwhile cannot be counted here, so this stands for all of it.
            self._drop("not_listening", 1)
        else:
            if self._refused:
                logger.warning(
                    "omni-metrics: listens for the stage engines' events at %s now",
                    self._endpoint.address,
                )
            self._refused = False

    def _run(self) -> None:
        while True:
            if self._open is None:
                if self._closing.wait(_RETRY_SECONDS):
                    return
                with internal_errors.suppressed("receiving events of other processes"):
                    self._try_to_open()
                continue
            try:
                self._listen(self._open.socket)
                return
            except Exception as error:
                internal_errors.report("receiving events of other processes", error)
            finally:
                opened, self._open = self._open, None
                opened.close()

    def _listen(self, socket: zmq.Socket[bytes]) -> None:
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

    def take(self, data: bytes) -> None:
        """One message came; never raises."""
        if len(data) > MOST_BYTES:
            self._drop("oversized", 1)
            return
        try:
            frame, invalid = frames.decode(data)
        except FrameError:
            self._drop("garbage", 1)
            return
        self._drop("invalid", invalid)
        self._count(frame, invalid)
        for event in frame.events:
            with internal_errors.suppressed("an event of another process"):
                self._deliver(event)

    def _count(self, frame: Frame, invalid: int) -> None:
        before = self._senders.pop(frame.sender, _Told(frame.first, 0, 0, {}))
        ended = frame.first + len(frame.events) + invalid
        self._senders[frame.sender] = _Told(ended, frame.dropped, frame.unsendable, frame.errors)
        if len(self._senders) > _MOST_SENDERS:
            self._senders.popitem(last=False)
        self._drop("lost", frame.first - before.sent)
        self._drop("queue_full", frame.dropped - before.dropped)
        self._drop("unsendable", frame.unsendable - before.unsendable)
        for place, count in frame.errors.items():
            if count > before.errors.get(place, 0):
                internal_errors.errors.add(place, count - before.errors.get(place, 0))

    def _drop(self, reason: str, count: int) -> None:
        if count > 0 and self._events_dropped.listeners:
            self._events_dropped(EventsDropped(reason=reason, count=count))


class _Open:
    """A socket that listens, with what it needs."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises OSError, ValueError or zmq.ZMQError, and then leaves nothing open."""
        self._endpoint = endpoint
        self._authenticator: ThreadAuthenticator | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self.socket = self._context.socket(zmq.PULL)
            self.socket.linger = 0
            self.socket.rcvhwm = _MOST_FRAMES
            self.socket.maxmsgsize = _MOST_TRANSPORT_BYTES
            if endpoint.key_file is not None:
                self._authenticator = _only_holders_of(self._context, endpoint.key_file)
            endpoint.bind(self.socket)
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        self._stop()
        self._endpoint.remove()

    def _stop(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=0)


def _only_holders_of(context: zmq.Context[zmq.Socket[bytes]], key_file: str) -> ThreadAuthenticator:
    public, _ = zmq.auth.load_certificate(key_file)

    class Holders:
        def callback(self, domain: str, key: bytes) -> bool:
            return key == public

    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", credentials_provider=Holders())
    return authenticator
