"""A hook plugin: counts, timings and gauges for StatsD and DogStatsD, over UDP."""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Configured,
    ImageFinished,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageFinished,
    VideoFinished,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_statsd")

FLUSH_SECONDS = 1.0
#: What fits into one Ethernet frame; both servers advise it.
DATAGRAM_BYTES = 1432
#: Lines that wait for the next flush.
MOST_WAITING = 50_000
#: What has a meaning of its own there.
_IN_TAGS = re.compile(r"[|,#\s]")
_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


class StatsD:
    """Makes a line of each measurement; a thread of its own sends them every second."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._to = ("", 0)
        self._prefix = b""
        self._has_tags = True
        self._socket: socket.socket | None = None
        self._lines: deque[bytes] = deque()
        self._counting = threading.Lock()
        self._open: Counter[str] = Counter()
        #: Lines that were not sent. The receiver is told of them, as ``statsd_dropped``.
        self.dropped = 0
        self._told_of = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        address = self._environ.get("VLLM_OMNI_STATSD")
        if event.role != "server" or self._thread is not None or not address:
            return
        host, _, port = address.rpartition(":")
        if not (host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= 65535):
            logger.warning("VLLM_OMNI_STATSD=%r is not host:port; nothing is sent", address)
            return
        name = "VLLM_OMNI_STATSD_FORMAT"
        form = self._environ.get(name) or "dogstatsd"
        if form not in ("dogstatsd", "statsd"):
            logger.warning("%s=%r is neither dogstatsd nor statsd; dogstatsd is used", name, form)
        self._has_tags = form != "statsd"
        prefix = self._environ.get("VLLM_OMNI_STATSD_PREFIX") or "vllm_omni"
        self._prefix = prefix.encode("utf-8", "replace")
        self._to = (host.strip("[]"), int(port))
        self._thread = threading.Thread(target=self._run, name="omni-statsd", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # None of them is slow: they only make lines.

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        with self._counting:
            self._open[event.model_name] += 1

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        with self._counting:
            self._open[event.model_name] -= 1
        self._add("requests", 1, "c", model=event.model_name, outcome=event.outcome)
        self._time("request_time", event.end_to_end_seconds, model=event.model_name)
        self._time("queue_time", event.queue_seconds, model=event.model_name)

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.index == 0 and event.streamed:
            self._time("first_packet_time", event.since_arrival_seconds, **_where(event))

    @hookimpl
    def omni_audio_finished(self, event: AudioFinished) -> None:
        where = _where(event)
        self._add("audio_seconds", event.duration_seconds, "c", **where)
        # Of StatsD, timers are the histograms.
        self._add("audio_rtf", event.rtf, "h" if self._has_tags else "ms", **where)

    @hookimpl
    def omni_image_finished(self, event: ImageFinished) -> None:
        self._add("images", event.images, "c", **_where(event))

    @hookimpl
    def omni_video_finished(self, event: VideoFinished) -> None:
        self._add("video_seconds", event.duration_seconds, "c", **_where(event))

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        where = {"stage": event.stage, "replica": event.replica}
        self._add("tokens_in", event.tokens_in, "c", **where)
        self._add("tokens_out", event.tokens_out, "c", **where)

    def close(self) -> None:
        """Send what is left and end the thread; what comes later is not sent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(self.close)
            self._stopping.set()
            thread.join(5.0)

    def _time(self, name: str, seconds: float | None, **tags: object) -> None:
        self._add(name, None if seconds is None else 1000 * seconds, "ms", **tags)

    def _add(self, name: str, value: float | None, kind: str, **tags: object) -> None:
        """One line, if there is a value."""
        if value is None or self._thread is None:
            return
        if len(self._lines) >= MOST_WAITING:
            self._drop(1)
        else:
            self._lines.append(self._line(name, value, kind, tags))

    def _line(self, name: str, value: float, kind: str, tags: Mapping[str, object]) -> bytes:
        known = {tag: str(value) for tag, value in tags.items() if value is not None}
        if self._has_tags:
            after = ",".join(f"{tag}:{_IN_TAGS.sub('_', text)}" for tag, text in known.items())
            after = f"|#{after}" if after else ""
        else:
            name = ".".join([name, *(_IN_NAMES.sub("_", text) for text in known.values())])
            after = ""
        return b"%b.%b" % (self._prefix, f"{name}:{round(value, 6)}|{kind}{after}".encode())

    def _drop(self, lines: int) -> None:
        with self._counting:
            self.dropped += lines

    def _run(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stopping.wait(FLUSH_SECONDS)
            self._flush()
        if self._socket is not None:
            self._socket.close()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        with self._counting:
            open_now, dropped = dict(self._open), self.dropped
        lines += [self._line("requests_open", n, "g", {"model": m}) for m, n in open_now.items()]
        news = dropped - self._told_of
        if news:
            lines.insert(0, self._line("statsd_dropped", news, "c", {}))
        for number, datagram in enumerate(datagrams(lines)):
            try:
                if self._socket is None:
                    self._socket = _connected(self._to)
                self._socket.send(b"\n".join(datagram))
                if number == 0:
                    self._told_of = dropped
            except OSError as error:  # as when nobody listens, or the buffer is full
                logger.debug("%d lines were not sent: %s", len(datagram), error)
                self._drop(len(datagram))
                if self._socket is not None and not isinstance(error, BlockingIOError):
                    self._socket.close()
                    self._socket = None  # the name may stand for another address by now


def datagrams(lines: list[bytes]) -> Iterator[list[bytes]]:
    """The lines of each datagram; a line that is too long has one of its own."""
    room, datagram = DATAGRAM_BYTES, list[bytes]()
    for line in lines:
        if datagram and room < len(line):
            yield datagram
            room, datagram = DATAGRAM_BYTES, []
        datagram.append(line)
        room -= len(line) + 1
    if datagram:
        yield datagram


def _connected(to: tuple[str, int]) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(*to, type=socket.SOCK_DGRAM)[0]
    connected = socket.socket(family, kind, protocol)
    connected.setblocking(False)
    connected.connect(address)
    return connected


def _where(event: MediaPacket | AudioFinished | ImageFinished | VideoFinished) -> dict[str, object]:
    return {"model": event.model_name, "stage": event.stage, "replica": event.replica}


plugin = StatsD()
