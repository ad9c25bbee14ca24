"""What a server's /metrics has counted: sums over all label sets, means, bounds of quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vllm_omni_metrics_plugin import catalog, scrape
from vllm_omni_metrics_plugin.scrape import Scrape

_START = "process_start_time_seconds"
_MISSING = f"{catalog.PREFIX}metrics_missing_samples_total"
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

    def share(self, at_most: float) -> float | None:
        """How many of all are at or below a bound; None without samples, or such a bucket."""
        counts = dict(self.buckets)
        return counts[at_most] / self.count if self.count and at_most in counts else None

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
    """What a server has counted until one scrape, or between two."""

    def __init__(self, page: Scrape, counted: Scrape) -> None:
        """``page`` is how it stands, gauges included; ``counted`` what only ever rises."""
        self._page = page
        self._counted = counted

    def since(self, before: Totals) -> Totals:
        """What was added since ``before``; UnreadableMetricsError after a restart."""
        started = self._page.sum(_START), before._page.sum(_START)
        if all(started) and started[0] != started[1]:
            raise UnreadableMetricsError("the server was started again since then")
        fallen = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for sample in before._counted - self._counted
            if sample.value > 0
        }
        if fallen:
            name, labels = first = min(fallen)
            now = self._counted.value(name, **dict(labels))
            then = fallen[first] + (now or 0.0)
            raise UnreadableMetricsError(
                f"{name}{dict(labels)} was {then:g} then and is "
                f"{'gone' if now is None else f'{now:g}'} now: another server, or started again"
            )
        return Totals(self._page, self._counted - before._counted)

    def counter(self, stem: str, successes: bool | None = None) -> float | None:
        """The family's value; None where the server has no such sample.

        ``successes`` picks those that ended by stop or length, or only the others.
        """
        values = [
            sample.value
            for sample in self._counted.named(catalog.BY_STEM[stem].name)
            if successes in (None, sample.labels.get("finished_reason") in _SUCCESSES)
        ]
        # A reason that did not occur has no sample; that a family by reason exists says 0.
        return sum(values, 0.0) if values or successes is not None else None

    def histogram(self, stem: str) -> Histogram:
        name = catalog.BY_STEM[stem].name
        buckets: dict[float, float] = {}
        for sample in self._counted.named(f"{name}_bucket"):
            bound = float(sample.labels.get("le", "nan"))
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
        return Histogram(
            count=self._counted.sum(f"{name}_count"),
            sum=self._counted.sum(f"{name}_sum"),
            buckets=tuple(sorted(buckets.items())),
        )

    def missing(self, stem: str) -> dict[str, float]:
        """How many samples the server could not take for this family, by reason."""
        family = catalog.BY_STEM[stem].name
        return self._counted.by(_MISSING, "reason", family=family)

    @property
    def unfinished(self) -> float:
        """Requests that the server has not finished yet."""
        return sum(
            self._page.sum(catalog.BY_STEM[stem].name)
            for stem in ("num_requests_running", "num_requests_waiting")
        )


def parse(text: str) -> Totals:
    """Raises UnreadableMetricsError for what no server with the plugin shows."""
    try:
        shown = scrape.parse(text)
        page = Scrape([*shown.named(_START), *shown.beginning(catalog.PREFIX)])
        for sample in page:
            if math.isnan(sample.value):
                raise ValueError(f"{sample.name} is NaN")
    except ValueError as error:
        raise UnreadableMetricsError(f"no text that Prometheus would read ({error})") from None
    # The plugin shows this one before any request; the engine's own families have other names.
    if not page.named(catalog.BY_STEM["metrics_patch_info"].name):
        raise UnreadableMetricsError(
            "none of the plugin's families; is VLLM_OMNI_METRICS=1 set there?"
        )
    return Totals(page, Scrape(sample for sample in page if sample.kind != "gauge"))
