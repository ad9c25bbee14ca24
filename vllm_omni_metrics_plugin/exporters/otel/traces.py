"""The hook plugin of the traces: gathers what happens to a sampled request, and sends it after it.

A request that is not sampled has no entry here, and costs a look for it. The spans are made in a
thread of our own, a moment after the request: what other processes tell may come that late.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any, Protocol

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.exporters.otel.sending import Dropped, Sending
from vllm_omni_metrics_plugin.exporters.otel.story import Story
from vllm_omni_metrics_plugin.exporters.otel.tree import ROOT, spans
from vllm_omni_metrics_plugin.hooks import (
    ImageFinished,
    MediaPacket,
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferReceived,
    TransferSent,
    VideoFinished,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_metrics")

#: So long after a request its trace is made; later events of it are not in it. Starts that are late
#: are told a second after the stage's end, or with the next request.
GRACE_SECONDS = 3.0
#: Requests that are traced at once.
MOST_STORIES = 4_096
#: At the end of the process.
_JOIN_SECONDS = 2.0


class Client(Protocol):
    """Whose request it is."""

    @property
    def endpoint(self) -> str | None: ...
    @property
    def traceparent(self) -> str | None: ...
    @property
    def tracestate(self) -> str | None: ...


class Accepted(Protocol):
    """A request that has arrived."""

    @property
    def request_id(self) -> str: ...
    @property
    def external_request_id(self) -> str: ...
    @property
    def model_name(self) -> str: ...
    @property
    def arrived_at(self) -> float: ...
    @property
    def client(self) -> Client: ...


class Traces:
    """Traces requests from :meth:`open` on, until :meth:`close`."""

    def __init__(
        self,
        clock: str,
        buffer_seconds: float = 0.0,
        *,
        environ: Mapping[str, str] = os.environ,
        make_exporter: Callable[[], Any] | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """``clock`` is this host's; times by another one are of no use here.

        ``buffer_seconds`` of the player whose silences are stalls. ``make_exporter`` makes an
        exporter of the SDK in the place of the one for OTLP.
        """
        self._clock = clock
        self._buffer_seconds = buffer_seconds
        self._environ = environ
        self._make_exporter = make_exporter
        self._grace_seconds = grace_seconds
        self._dropped = Dropped()
        self._sending: Sending | None = None
        self._lock = threading.Lock()
        #: By the ids of the request and of the extra ones that it made.
        self._by_id: dict[str, Story] = {}
        self._stories = 0
        #: Those that are over, in that order; None is the last.
        self._over: SimpleQueue[Story | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: By model and stage.
        self._names: dict[tuple[str, int], str] = {}
        #: Model and stage of those that others feed, and of diffusion engines.
        self._fed: set[tuple[str, int]] = set()
        self._diffusion: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        """How many requests are traced whose spans were not handed over yet."""
        return self._stories

    def open(self) -> None:
        """Trace from now on. Not before the engine is there: its processes would inherit threads.

        What the SDK does not take is said in one warning, and nothing is traced.
        """
        if self._sending is not None or self._closing.is_set():
            return
        try:
            self._sending = Sending(self._dropped, self._environ, self._make_exporter)
        except Exception as error:
            self._closing.set()
            logger.warning(
                "omni-metrics: the OpenTelemetry SDK refused what the OTEL_* variables say (%s: "
                "%s); no request is traced",
                type(error).__name__,
                error,
            )
            return
        name = "omni-metrics-traces"
        self._thread = threading.Thread(
            target=self._run, args=(self._sending,), name=name, daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Make the traces that are due, and send what is quickly sent."""
        atexit.unregister(self.close)
        sending, self._sending = self._sending, None
        if sending is None or self._thread is None:
            return
        self._closing.set()
        self._over.put(None)
        self._thread.join(_JOIN_SECONDS)
        sending.close()

    def dropped(self) -> Mapping[str, int]:
        """Spans that were lost, by reason."""
        return self._dropped.counts()

    def begin(self, accepted: Accepted) -> str | None:
        """The id of the request's trace, if it is to have one."""
        sending = self._sending
        if sending is None:
            return None
        client = accepted.client
        root = sending.begin(ROOT, accepted.arrived_at, client.traceparent, client.tracestate)
        if root is None:
            return None
        trace_id = f"{root.get_span_context().trace_id:032x}"
        story = Story(
            root=root,
            trace_id=trace_id,
            request_id=accepted.request_id,
            external_request_id=accepted.external_request_id,
            model_name=accepted.model_name,
            arrived_at=accepted.arrived_at,
            route=client.endpoint or "",
            buffer_seconds=self._buffer_seconds,
        )
        with self._lock:
            if self._stories >= MOST_STORIES:
                self._dropped.add("too_many_requests", 1)
                return None
            self._stories += 1
            self._by_id[accepted.request_id] = story
        return trace_id

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        where = (event.model_name, event.stage)
        with self._lock:
            self._names[where] = event.stage_name
            self._fed.update((event.model_name, stage) for stage in event.feeds)
            if event.stage_type == "diffusion":
                self._diffusion.add(where)

    @hookimpl
    def omni_replica_left(self, event: ReplicaLeft) -> None:
        with self._lock:
            for story in self._by_id.values():
                if story.model_name == event.model_name:
                    story.replica_left(event.stage, event.replica)

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        story = self._by_id.get(event.request_id)
        if story is not None:
            with self._lock:
                story.modalities.update(event.modalities)

    @hookimpl
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        request_id = event.parent_request_id or event.request_id
        if request_id in self._by_id:
            with self._lock:
                story = self._by_id.get(request_id)
                if story is not None and story.submitted(event):
                    self._by_id[event.request_id] = story

    @hookimpl
    def omni_stage_started(self, event: StageStarted) -> None:
        story = self._by_id.get(event.request_id)
        if story is not None:
            where = (story.model_name, event.stage)
            with self._lock:
                needs_input = where in self._fed and where not in self._diffusion
                story.started(event, needs_input=needs_input)

    @hookimpl
    def omni_stage_ended(self, event: StageEnded) -> None:
        story = self._by_id.get(event.request_id)
        if story is not None:
            with self._lock:
                story.stage_ended(event)

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        story = self._by_id.get(event.request_id)
        if story is not None:
            with self._lock:
                story.stage_finished(event)

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.trace_id is not None:
            story = self._by_id.get(event.request_id)
            if story is not None:
                with self._lock:
                    story.packet(event)

    @hookimpl
    def omni_stream_finished(self, event: StreamFinished) -> None:
        if event.trace_id is not None:
            story = self._by_id.get(event.request_id)
            if story is not None:
                with self._lock:
                    story.stream_finished(event)

    @hookimpl
    def omni_image_finished(self, event: ImageFinished) -> None:
        self._made(event.request_id, "image")

    @hookimpl
    def omni_video_finished(self, event: VideoFinished) -> None:
        self._made(event.request_id, "video")

    @hookimpl
    def omni_transfer_sent(self, event: TransferSent) -> None:
        story = self._by_id.get(event.request_id or "")
        if story is not None and event.clock == self._clock:
            with self._lock:
                story.sent(event)

    @hookimpl
    def omni_transfer_received(self, event: TransferReceived) -> None:
        story = self._by_id.get(event.request_id or "")
        if story is not None and event.clock == self._clock:
            with self._lock:
                story.received(event)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        if event.trace_id is None:
            return
        story = self._by_id.get(event.request_id)
        if story is not None:
            with self._lock:
                story.finished(event, time.monotonic())
            self._over.put(story)

    def _made(self, request_id: str, modality: str) -> None:
        story = self._by_id.get(request_id)
        if story is not None:
            with self._lock:
                story.modalities.add(modality)

    def _run(self, sending: Sending) -> None:
        while (story := self._over.get()) is not None:
            left = story.ended_at + self._grace_seconds - time.monotonic()
            if left > 0:
                self._closing.wait(left)
            with internal_errors.suppressed("making a trace"):
                sending.send(story.root, self._take(story))
            with self._lock:
                self._stories -= 1

    def _take(self, story: Story) -> Any:
        """Its spans; nothing is added to it any more."""
        with self._lock:
            for request_id in {story.request_id, *(key[0] for key in story.parts)}:
                if self._by_id.get(request_id) is story:
                    del self._by_id[request_id]
            return spans(story, self._name)

    def _name(self, model_name: str, stage: int) -> str | None:
        return self._names.get((model_name, stage))
