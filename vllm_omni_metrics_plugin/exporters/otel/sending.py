"""The SDK's tracer, with a queue that is bounded and says what it had no place for."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.exporters.otel.environment import PROTOCOLS, protocol
from vllm_omni_metrics_plugin.exporters.otel.service import resource
from vllm_omni_metrics_plugin.exporters.otel.tree import Span

_QUEUE = "OTEL_BSP_MAX_QUEUE_SIZE"
_USUAL_QUEUE = 2_048
#: At the end of the process: for so long the last spans may be on their way.
_LAST_SECONDS = 3.0


class Dropped:
    """How many spans were lost, by reason; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, spans: int) -> None:
        with self._lock:
            self._counts[reason] += spans

    def counts(self) -> dict[str, int]:
        """By reason, as of now."""
        with self._lock:
            return dict(self._counts)


class _Exporter:
    """Passes spans on, and sees how many were taken and how many lost."""

    def __init__(self, inner: Any, dropped: Dropped) -> None:
        self._inner = inner
        self._dropped = dropped
        #: Spans that have left the queue; written by the SDK's thread alone.
        self.taken = 0

    def export(self, spans: Sequence[Any]) -> Any:
        self.taken += len(spans)
        try:
            result = self._inner.export(spans)
        except BaseException:
            self._dropped.add("export_failed", len(spans))
            raise
        if result.name != "SUCCESS":
            self._dropped.add("export_failed", len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._inner.force_flush(timeout_millis))


class Sending:
    """Begins requests' spans, and sends whole trees of them; raises what the SDK raises."""

    def __init__(
        self,
        dropped: Dropped,
        environ: Mapping[str, str] = os.environ,
        make_exporter: Callable[[], Any] | None = None,
    ) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._extract = TraceContextTextMapPropagator().extract
        self._dropped = dropped
        self._room = _queue_size(environ)
        self._given = 0
        self._exporter = _Exporter((make_exporter or _otlp(environ))(), dropped)
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=self._room)
        # The sampler is what OTEL_TRACES_SAMPLER says. The end of the process is ours to bound.
        self._provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("vllm_omni_metrics_plugin", __version__)
        #: Nanoseconds that the wall clock is ahead of the monotonic one, for good: who sets the
        #: clock tears no trace apart.
        self._anchor = time.time_ns() - time.monotonic_ns()

    def begin(
        self, name: str, at: float, traceparent: str | None, tracestate: str | None
    ) -> Any | None:
        """A request's span, if the sampler takes it; ``at`` in monotonic seconds."""
        headers = {"traceparent": traceparent, "tracestate": tracestate}
        carrier = {key: value for key, value in headers.items() if value}
        span = self._tracer.start_span(
            name,
            context=self._extract(carrier, self._nothing),
            kind=self._api.SpanKind.SERVER,
            start_time=self._wall(at),
        )
        return span if span.get_span_context().trace_flags.sampled else None

    def send(self, root: Any, tree: Sequence[Span]) -> None:
        """``root`` is the span that was begun for the first of ``tree``."""
        if self._given - self._exporter.taken + len(tree) > self._room:
            self._dropped.add("queue_full", len(tree))
            return
        made: list[Any] = []
        for span in tree:
            made.append(root if not made else self._child(span, made))
            self._fill(made[-1], span)
        self._given += len(tree)
        # The parents last, which is the order in which they end.
        for span, one in zip(reversed(tree), reversed(made), strict=True):
            one.end(self._wall(span.ended_at))

    def flush(self) -> None:
        """Send what waits; blocks as long as the collector does."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send what waits, if that is quick."""
        # A collector that does not answer would hold the process for half a minute.
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(_LAST_SECONDS)

    @property
    def _nothing(self) -> Any:
        """The context of nobody, whatever the calling code's is."""
        from opentelemetry.context import Context

        return Context()

    def _child(self, span: Span, made: Sequence[Any]) -> Any:
        parent = made[span.parent or 0]
        context = self._api.set_span_in_context(parent, self._nothing)
        followed = () if span.link is None else (made[span.link],)
        return self._tracer.start_span(
            span.name,
            context=context,
            start_time=self._wall(span.began_at),
            links=[self._api.Link(other.get_span_context()) for other in followed],
        )

    def _fill(self, one: Any, span: Span) -> None:
        one.set_attributes(span.attributes)
        for moment in span.moments:
            one.add_event(moment.name, moment.attributes, self._wall(moment.at))
        if span.error is not None:
            one.set_status(self._api.Status(self._api.StatusCode.ERROR, span.error))

    def _wall(self, at: float) -> int:
        return int(at * 1e9) + self._anchor


def _otlp(environ: Mapping[str, str]) -> Callable[[], Any]:
    kind = PROTOCOLS[protocol(environ, "TRACES")]
    module = import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter")
    made: Callable[[], Any] = module.OTLPSpanExporter
    return made


def _queue_size(environ: Mapping[str, str]) -> int:
    """The SDK says what is wrong with another value, and takes its default."""
    try:
        return int(environ.get(_QUEUE, _USUAL_QUEUE))
    except ValueError:
        return _USUAL_QUEUE
