"""The /metrics of a server without the server: what a real exporter shows after real events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import Event, ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.scrape import Scrape, parse
from vllm_omni_metrics_plugin.testing import make_event

_ANY_FAMILY = catalog.FAMILIES[0].name


class MetricsPage:
    """A page under construction."""

    def __init__(self, registry: CollectorRegistry, hooks: Any) -> None:
        """``registry`` is where an exporter publishes that is called by ``hooks``."""
        self._registry = registry
        self._feed = Feed(hooks)
        self._others: dict[str, Any] = {}
        # The families are there from the first replica on; a test that needs one has it join.
        self.fire(make_event(ReplicaJoined), make_event(ReplicaLeft))

    def fire(self, *events: Event) -> None:
        """What the exporter makes of these events."""
        for event in events:
            self._feed.event(event)

    def add(self, stem: str, amount: float = 1, **labels: str) -> None:
        """What no event leaves behind by itself, and so a fault: ``amount`` more of this family.

        Of a histogram that many observations of 1. Labels that do not matter may be left out.
        """
        self.add_other(catalog.PREFIX + stem, amount, **labels)

    def add_other(self, name: str, amount: float = 1, **labels: str) -> None:
        """The same of a family of the engine or of prometheus_client, by its full name."""
        family = self._family(name, labels)
        names = family._labelnames
        assert set(labels) <= set(names), f"{name} has the labels {names}"
        if names:
            usual = {label: "m" if label == "model_name" else "0" for label in names}
            family = family.labels(**usual | labels)
        if hasattr(family, "observe"):
            for _ in range(int(amount)):
                family.observe(1.0)
        else:
            family.inc(amount)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def scrape(self) -> Scrape:
        return parse(self.text().decode())

    def _family(self, name: str, labels: dict[str, str]) -> Any:
        """The exporter's own, or else one beside it, as the engine or another release has them."""
        collectors = self._registry._names_to_collectors
        own = collectors[_ANY_FAMILY]._registry._names_to_collectors  # type: ignore[attr-defined]
        if name in own:
            return own[name]
        if name not in self._others:
            kind = Counter if name.endswith("_total") else Gauge
            self._others[name] = kind(name, ".", sorted(labels), registry=self._registry)
        return self._others[name]


@contextmanager
def building(expose: Any) -> Iterator[MetricsPage]:
    """A page of its own; ``expose`` is the fixture that makes a listening exporter."""
    with expose() as exposed:
        yield MetricsPage(exposed.registry, exposed.hooks)
