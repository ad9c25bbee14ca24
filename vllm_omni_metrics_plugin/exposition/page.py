"""A registry's page, in Prometheus' text format or in OpenMetrics 1.0.

Families whose lines are kept are written from those; every other collector is asked, and written by
prometheus_client. Names keep their colons in both formats.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from vllm_omni_metrics_plugin.exporters.prometheus.registry import RegistryCollector
from vllm_omni_metrics_plugin.exposition.lines import LABEL, NAME, FamilyLines, lines_of

#: The last line of OpenMetrics.
END = "# EOF\n"
#: For how long another thread may have to wait for the interpreter, and how it gets it then: a
#: thread that sleeps for no time at all has it back before the other one wakes up.
_AT_A_STRETCH_SECONDS = 0.0005
_PAUSE_SECONDS = 0.000_001

# Some releases of prometheus_client make underscores of colons, unless they are to leave all be.
_keeps_names: Callable[[Collector], bytes] = (
    partial(generate_openmetrics, escaping="allow-utf-8")
    if "escaping" in inspect.signature(generate_openmetrics).parameters
    else generate_openmetrics
)
_quotes_names: Callable[[Collector], bytes] = generate_openmetrics


class Page:
    """The page of one registry; one thread at a time may have it written."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        #: None for a collector that is to be asked.
        self._lines: dict[Collector, FamilyLines | None] = {}

    def text(self) -> list[bytes]:
        """Byte for byte what prometheus_client makes of the registry, in pieces."""
        return self._written(FamilyLines.text, text_of)

    def openmetrics(self) -> list[bytes]:
        """OpenMetrics 1.0, with exemplars, in pieces."""
        return self._written(FamilyLines.openmetrics, openmetrics_of, END)

    def _written(
        self,
        lines: Callable[[FamilyLines], Iterable[str] | None],
        asked: Callable[[Collector], str],
        end: str = "",
    ) -> list[bytes]:
        pieces: list[bytes] = []
        parts: list[str] = []
        earlier, self._lines = self._lines, {}
        began = time.perf_counter()
        for collector in self._collectors():
            kept = earlier[collector] if collector in earlier else lines_of(collector)
            self._lines[collector] = kept
            written = None if kept is None else lines(kept)
            if written is None:
                parts.append(asked(collector))
            else:
                parts += written
            if time.perf_counter() - began > _AT_A_STRETCH_SECONDS:
                # Put together now: in the end it would take a stretch of many times this.
                pieces.append("".join(parts).encode())
                parts = []
                time.sleep(_PAUSE_SECONDS)
                began = time.perf_counter()
        parts.append(end)
        pieces.append("".join(parts).encode())
        return pieces

    def _collectors(self) -> Iterator[Collector]:
        target = self._registry.get_target_info()
        if target:
            yield _Shown([self._registry._target_info_metric()])  # type: ignore[no-untyped-call]
        with self._registry._lock:
            collectors = list(self._registry._collector_to_names)
        for collector in collectors:
            if isinstance(collector, RegistryCollector):
                with collector.refreshed() as families:
                    yield from families
            else:
                yield collector


class _Shown:
    """A collector, and so a registry, of these families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def text_of(collector: Collector) -> str:
    """As prometheus_client writes a collector, or a registry."""
    return generate_latest(collector).decode()


def openmetrics_of(collector: Collector) -> str:
    """The same in the other format, without the mark at its end; names keep their colons."""
    families = list(collector.collect())
    write = _keeps_names if all(map(_is_plain, families)) else _quotes_names
    return write(_Shown(families)).decode().removesuffix(END)


def _is_plain(family: Metric) -> bool:
    """Whether no name in it has to be quoted."""
    return bool(NAME.fullmatch(family.name)) and all(
        NAME.fullmatch(sample.name) and all(map(LABEL.fullmatch, sample.labels))
        for sample in family.samples
    )
