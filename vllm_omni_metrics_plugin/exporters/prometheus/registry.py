"""The metric objects of the catalogue, in a registry of their own that another one shows.

One collector without a name shows them to the default registry. vLLM drops collectors by their
names whenever it builds a stat logger (any name with "vllm" in it, later the prefix ``vllm:``), so
this collector stays, and so do its counts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vllm_omni_metrics_plugin import api_servers, catalog
from vllm_omni_metrics_plugin.catalog import Family

logger = logging.getLogger("vllm.omni_metrics")


class Families:
    """Every family of the catalogue, by stem: ``families["audio_rtf"].labels(...)``."""

    def __init__(self, buckets: Mapping[str, tuple[float, ...]]) -> None:
        """``buckets`` replace the catalogue's, by family stem."""
        self.registry = CollectorRegistry()
        self._by_stem: dict[str, Any] = {
            family.stem: _metric(family, buckets.get(family.stem, family.buckets), self.registry)
            for family in catalog.FAMILIES
        }
        self._missing = self._by_stem["metrics_missing_samples_total"]

    def __getitem__(self, stem: str) -> Any:
        return self._by_stem[stem]

    def missing(self, reason: str, *stems: str) -> None:
        """A sample of each of these families could not be measured."""
        for stem in stems:
            self._missing.labels(catalog.BY_STEM[stem].name, reason).inc()

    def expect_missing(self, *stems: str) -> None:
        """Have the reasons stand at 0 for which samples of these families may be missing."""
        for stem in stems:
            family = catalog.BY_STEM[stem]
            for reason in family.missing:
                self._missing.labels(family.name, reason)

    def expect(self, stem: str, *values: str) -> None:
        """Have a series stand at 0: a counter that is born at 1 has no increase."""
        self._by_stem[stem].labels(*values)

    def withdraw(self, stem: str, labels: tuple[str, ...]) -> None:
        """Take back a series of a gauge that says what is."""
        # In multiprocess mode a series cannot be removed; 0 says that it no longer holds.
        self._by_stem[stem].labels(*labels).set(0)
        if not api_servers.is_on(os.environ):  # it would only warn
            self._by_stem[stem].remove(*labels)


class RegistryCollector(Collector):
    """Shows one registry's families to another one, brought up to date by ``refresh``."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
        self._registry = registry
        self._refresh = refresh
        #: One scrape at a time, else another one's refresh would come between two families.
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            self._refresh()
            return list(self._registry.collect())

    @contextmanager
    def refreshed(self) -> Iterator[list[Collector]]:
        """The families themselves, brought up to date, and by nobody else within the block."""
        with self._lock:
            self._refresh()
            yield list(self._registry._collector_to_names)

    def describe(self) -> Iterable[Metric]:
        return self._registry.collect()

    def publish_in(self, registry: CollectorRegistry) -> None:
        """Be shown there, in the place of whatever has a name of ours.

        vllm-omni 0.22 has six families that we have too.
        """
        holders = {
            registry._names_to_collectors[name]
            for name in registry._get_names(self)  # type: ignore[no-untyped-call]
            if name in registry._names_to_collectors
        }
        for holder in holders:
            name = getattr(holder, "_name", type(holder).__name__)
            logger.info("omni-metrics: publishes %s in the engine's place", name)
            registry.unregister(holder)
        registry.register(self)


def _metric(
    family: Family, buckets: tuple[float, ...], registry: CollectorRegistry
) -> MetricWrapperBase:
    if family.kind == "histogram":
        return Histogram(
            family.name, family.help, family.labels, buckets=buckets, registry=registry
        )
    if family.kind == "counter":
        return Counter(family.name, family.help, family.labels, registry=registry)
    return Gauge(
        family.name,
        family.help,
        family.labels,
        multiprocess_mode=family.aggregate,
        registry=registry,
    )
