"""Holds the families of hook plugins at so many series that a server and its Prometheus bear it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from vllm_omni_metrics_plugin import internal_errors

logger = logging.getLogger("vllm.omni_metrics")

#: Of one family, a histogram's buckets counted singly.
MOST_SERIES = 2_000
#: What stands in each label of the series that takes what is too much.
OVERFLOW = "overflow"
#: Families of the engine, which a plugin's imports may bring along.
_ENGINES = ("vllm:", "vllm_omni:")


@contextmanager
def made(registry: CollectorRegistry, families: list[MetricWrapperBase]) -> Iterator[None]:
    """Adds the families that come to the registry within the block, whatever ends it."""
    before = set(registry._collector_to_names)
    try:
        yield
    finally:
        with internal_errors.suppressed("finding a hook plugin's families"):
            new = [family for family in registry._collector_to_names if family not in before]
            families += [family for family in new if isinstance(family, MetricWrapperBase)]


class Guard:
    """Knows the families that hook plugins made while they were loaded."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._held: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def loading(self, plugin: str) -> Iterator[None]:
        """The families that come to the registry within the block are the plugin's."""
        families: list[MetricWrapperBase] = []
        try:
            with made(self._registry, families):
                yield
        finally:
            with internal_errors.suppressed("guarding a hook plugin's families"):
                for family in families:
                    if family._labelnames:
                        self._hold(plugin, family)

    def counts(self) -> dict[tuple[str, str, str], int]:
        """By plugin, family and label, how often a series was asked for that was too much."""
        with self._lock:
            return dict(self._held)

    def _hold(self, plugin: str, family: Any) -> None:
        if not family._name.startswith(_ENGINES):
            family.labels = _Held(plugin, family, self._exceeds).labels

    def _exceeds(self, *whose: str) -> bool:
        """Whether this is the first time."""
        plugin, family, label = whose
        with self._lock:
            self._held[plugin, family, label] += 1
            return self._held[plugin, family, label] == 1


class _Held:
    """Stands before the ``labels`` of one family."""

    def __init__(self, plugin: str, family: Any, exceeds: Callable[..., bool]) -> None:
        self._plugin = plugin
        self._family = family
        self._name = f"{family._name}_total" if family._type == "counter" else family._name
        self._exceeds = exceeds
        self._labels = family.labels
        #: Children, beside the one that takes the rest; known with the first of them.
        self._most: int | None = None
        #: The label whose values are too many.
        self._culprit: str | None = None

    def labels(self, *values: Any, **named: Any) -> Any:
        """As the family's, and raises what that does."""
        most = self._most
        if most is not None and len(self._family._metrics) >= most and self._is_new(values, named):
            with internal_errors.suppressed("holding a hook plugin's family"):
                self._report()
            return self._labels(*[OVERFLOW] * len(self._family._labelnames))
        child = self._labels(*values, **named)
        if most is None:
            self._most = max(1, MOST_SERIES // len(list(child._samples())) - 1)
        return child

    def _is_new(self, values: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether it would make a child; False for what it would not take."""
        names = self._family._labelnames
        if named:
            if values or named.keys() != set(names):
                return False
            values = tuple(named[name] for name in names)
        return len(values) == len(names) and tuple(map(str, values)) not in self._family._metrics

    def _report(self) -> None:
        if self._culprit is None:
            self._culprit = self._most_diverse()
        if self._exceeds(self._plugin, self._name, self._culprit):
            logger.warning(
                "omni-metrics: hook plugin %r: its family %s has %d series and gets no more; what "
                "is new goes to the one with %r in each label. Most values has the label %s",
                self._plugin,
                self._name,
                MOST_SERIES,
                OVERFLOW,
                self._culprit,
            )

    def _most_diverse(self) -> str:
        names: Sequence[str] = self._family._labelnames
        with self._family._lock:
            columns = list(zip(*self._family._metrics, strict=True))
        return max(zip(map(len, map(set, columns)), names, strict=True))[1]
