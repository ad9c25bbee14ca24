"""A receiver of OTLP on loopback, by HTTP and protobuf, and what it was sent."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

#: ``refuses``: 400 to everything. ``garbage``: 200, and no answer that anybody can read.
#: ``hangs``: no answer before it does something else.
Manner = Literal["takes", "refuses", "garbage", "hangs"]


@dataclass(frozen=True)
class Received:
    """A span as it came over the wire; times in nanoseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    began_at: int
    ended_at: int
    attributes: dict[str, Any]
    #: Name, time and attributes of each.
    events: list[tuple[str, int, dict[str, Any]]]
    #: The ids of spans.
    links: list[str]
    #: 0: unset, 2: error.
    status: int
    message: str

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.began_at) / 1e9


class Parent:
    """A span of a client's own, in a trace that it has begun."""

    def __init__(self) -> None:
        self.trace_id = secrets.token_hex(16)
        self.span_id = secrets.token_hex(8)

    @property
    def header(self) -> str:
        """Its ``traceparent``; the client records its trace."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def began(self, root: Received) -> bool:
        """Whether a server's span continues it."""
        return (root.trace_id, root.parent_id) == (self.trace_id, self.span_id)


class Receiver:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.manner: Manner = "takes"
        self.metric_requests: list[Any] = []
        self.trace_requests: list[Any] = []
        self._kinds: dict[str, tuple[Any, Any, list[Any]]] = {
            "/v1/metrics": (
                ExportMetricsServiceRequest,
                ExportMetricsServiceResponse,
                self.metric_requests,
            ),
            "/v1/traces": (
                ExportTraceServiceRequest,
                ExportTraceServiceResponse,
                self.trace_requests,
            ),
        }
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                while receiver.manner == "hangs":
                    time.sleep(0.01)
                status, answer = receiver._answer(self.path, self.headers["content-type"], body)
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.manner = "takes"
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def being(self, manner: Manner) -> Iterator[None]:
        """Behave so for the length of the block."""
        self.manner = manner
        try:
            yield
        finally:
            self.manner = "takes"

    def _answer(self, path: str, content_type: str, body: bytes) -> tuple[int, bytes]:
        request, response, kept = self._kinds[path]
        assert content_type == "application/x-protobuf"
        if self.manner == "refuses":
            return 400, b""
        kept.append(request.FromString(body))
        return 200, b"\xff no" if self.manner == "garbage" else response().SerializeToString()

    # Metrics

    def metrics(self) -> dict[str, Any]:
        """The last state of each metric, by name."""
        return {
            metric.name: metric
            for request in self.metric_requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], int, float]]:
        """Attributes, count and sum of each of a histogram's points."""
        return [
            (plain(point.attributes), point.count, round(point.sum, 6))
            for point in self.metrics()[name].histogram.data_points
        ]

    # Traces

    def spans(self) -> list[Received]:
        return [
            _received(span)
            for request in list(self.trace_requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, is_it: Callable[[Received], bool], seconds: float = 60.0) -> Trace:
        """The whole trace of the request whose first span is the one that is looked for.

        Its first span ends last, so the others are there.
        """
        deadline = time.monotonic() + seconds
        while True:
            spans = self.spans()
            roots = [span for span in spans if span.name == "omni.request" and is_it(span)]
            if roots:
                [root] = roots
                return Trace(root, _below(root, spans))
            assert time.monotonic() < deadline, f"no such trace among {len(spans)} spans"
            time.sleep(0.05)


@dataclass(frozen=True)
class Trace:
    """A request's span, and all below it."""

    root: Received
    others: list[Received]

    def named(self, name: str) -> list[Received]:
        """The spans of this name, or whose name begins with it and a space."""
        return [
            span for span in self.others if span.name == name or span.name.startswith(f"{name} ")
        ]

    def stage(self, number: int) -> Received:
        [found] = [s for s in self.named("omni.stage") if s.attributes[_STAGE] == number]
        return found

    def below(self, parent: Received, name: str) -> list[Received]:
        return [s for s in self.others if s.parent_id == parent.span_id and s.name == name]

    def assert_is_a_tree(self) -> None:
        """Each span within its parent's time, in one trace, and moments within their span."""
        by_id = {span.span_id: span for span in (self.root, *self.others)}
        assert len(by_id) == 1 + len(self.others)
        for span in by_id.values():
            assert span.trace_id == self.root.trace_id
            assert span.began_at <= span.ended_at, span
            for name, at, _ in span.events:
                assert span.began_at <= at <= span.ended_at, (span.name, name)
        for span in self.others:
            parent = by_id[span.parent_id]
            assert parent.began_at <= span.began_at, (parent, span)
            assert span.ended_at <= parent.ended_at, (parent, span)


_STAGE = "vllm_omni.stage.id"


def _below(root: Received, spans: list[Received]) -> list[Received]:
    found: list[Received] = []
    ids = {root.span_id}
    while True:
        more = [s for s in spans if s.parent_id in ids and s.span_id not in ids]
        if not more:
            return found
        found += more
        ids |= {span.span_id for span in more}


def _received(span: Any) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        began_at=span.start_time_unix_nano,
        ended_at=span.end_time_unix_nano,
        attributes=plain(span.attributes),
        events=[(e.name, e.time_unix_nano, plain(e.attributes)) for e in span.events],
        links=[link.span_id.hex() for link in span.links],
        status=span.status.code,
        message=span.status.message,
    )


def plain(attributes: Any) -> dict[str, Any]:
    return {a.key: _value(a.value) for a in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, str(kind))
