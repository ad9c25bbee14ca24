"""What a server's /metrics has counted: sums over all label sets, means, bounds of quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from vllm_omni_metrics_plugin import catalog

#: A sample's name and labels.
Key = tuple[str, frozenset[tuple[str, str]]]

_START = "process_start_time_seconds"
_SUCCESSES = ("stop", "length")


class UnreadableMetricsError(Exception):
    """The text is not what a server with the plugin says; the message says what is wrong."""


@dataclass(frozen=True)
class Histogram:
    """A family's samples: how many, their sum, and how many are at or below each bound."""

    count: float
    sum: float
    #: (bound, cumulative count), rising, the last bound infinite.
    buckets: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    def quantile(self, percent: float) -> tuple[float, float] | None:
        """The bounds between which the percentile is; None without samples.

        A percentile is what numpy makes of the single values: it lies between the two of them that
        are next to it in order, so both of their buckets count.
        """
        if not self.count or not self.buckets:
            return None
        place = (self.count - 1) * percent / 100
        return self._bucket(math.floor(place))[0], self._bucket(math.ceil(place))[1]

    def _bucket(self, index: int) -> tuple[float, float]:
        """Bounds of the bucket of the value with this index in ascending order, from 0."""
        lower = 0.0
        for bound, cumulative in self.buckets:
            if cumulative > index:
                return lower, bound
            lower = bound
        return lower, math.inf


class Totals:
    """The samples of one scrape, or what was added between two."""

    def __init__(self, samples: Mapping[Key, float], gauges: Mapping[Key, float]) -> None:
        """``samples`` only ever rise while a server lives, ``gauges`` are as they are now."""
        self._samples = samples
        self._gauges = gauges

    def since(self, before: Totals) -> Totals:
        """What was added since ``before``; UnreadableMetricsError after a restart."""
        started = self._sum(_START, self._gauges), self._sum(_START, before._gauges)
        if all(started) and started[0] != started[1]:
            raise UnreadableMetricsError("the server was started again since then")
        lost = [key for key, value in before._samples.items() if self._samples.get(key, 0) < value]
        if lost:
            name, labels = min(lost, key=str)
            now = self._samples.get((name, labels))
            raise UnreadableMetricsError(
                f"{name}{dict(sorted(labels))} was {before._samples[name, labels]:g} then and is "
                f"{'gone' if now is None else f'{now:g}'} now: another server, or started again"
            )
        added = {key: value - before._samples.get(key, 0.0) for key, value in self._samples.items()}
        return Totals(added, self._gauges)

    def counter(self, stem: str, successes: bool | None = None) -> float | None:
        """The family's value; None where the server has no such sample.

        ``successes`` picks those that ended by stop or length, or only the others.
        """
        name = catalog.BY_STEM[stem].name
        values = [
            value
            for (sample, labels), value in self._samples.items()
            if sample == name
            and successes in (None, dict(labels).get("finished_reason") in _SUCCESSES)
        ]
        # A reason that did not occur has no sample; that a family by reason exists says 0.
        return sum(values, 0.0) if values or successes is not None else None

    def histogram(self, stem: str) -> Histogram:
        name = catalog.BY_STEM[stem].name
        buckets: dict[float, float] = {}
        for (sample, labels), value in self._samples.items():
            if sample == f"{name}_bucket":
                bound = float(dict(labels).get("le", "nan"))
                buckets[bound] = buckets.get(bound, 0.0) + value
        return Histogram(
            count=self._sum(f"{name}_count", self._samples),
            sum=self._sum(f"{name}_sum", self._samples),
            buckets=tuple(sorted(buckets.items())),
        )

    def missing(self, stem: str) -> dict[str, float]:
        """How many samples the server could not take for this family, by reason."""
        name = catalog.BY_STEM["metrics_missing_samples_total"].name
        found: dict[str, float] = {}
        for (sample, labels), value in self._samples.items():
            said = dict(labels)
            if sample == name and said.get("family") == stem and value:
                reason = said.get("reason", "")
                found[reason] = found.get(reason, 0.0) + value
        return found

    @property
    def unfinished(self) -> float:
        """Requests that the server has not finished yet."""
        return sum(
            self._sum(catalog.BY_STEM[stem].name, self._gauges)
            for stem in ("num_requests_running", "num_requests_waiting")
        )

    @staticmethod
    def _sum(name: str, samples: Mapping[Key, float]) -> float:
        return sum((value for (sample, _), value in samples.items() if sample == name), 0.0)


def parse(text: str) -> Totals:
    """Raises UnreadableMetricsError for what no server with the plugin shows."""
    samples: dict[Key, float] = {}
    gauges: dict[Key, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            if family.name != _START and not family.name.startswith(catalog.PREFIX):
                continue
            for sample in family.samples:
                if math.isnan(sample.value):
                    raise ValueError(f"{sample.name} is NaN")
                kind = gauges if family.type == "gauge" else samples
                kind[sample.name, frozenset(sample.labels.items())] = sample.value
    except ValueError as error:
        raise UnreadableMetricsError(f"no text that Prometheus would read ({error})") from None
    # The plugin shows this one before any request; the engine's own families have other names.
    seams = catalog.BY_STEM["metrics_patch_info"].name
    if not any(name == seams for name, _ in gauges):
        raise UnreadableMetricsError(
            "none of the plugin's families; is VLLM_OMNI_METRICS=1 set there?"
        )
    return Totals(samples, gauges)
