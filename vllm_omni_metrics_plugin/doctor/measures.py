"""What a rule reads on a server's ``/metrics``: one number for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.scrape import Scrape


@dataclass(frozen=True)
class Count:
    """The sum of a sample's series that have, of each label in ``where``, one of the values."""

    sample: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, page: Scrape) -> float:
        return sum(
            sample.value
            for sample in page.named(self.sample)
            if all(sample.labels.get(label) in values for label, values in self.where.items())
        )


@dataclass(frozen=True)
class Labelled:
    """How many series of the families with this prefix have the label."""

    prefix: str
    label: str

    def of(self, page: Scrape) -> float:
        return sum(self.label in sample.labels for sample in page.beginning(self.prefix))


@dataclass(frozen=True)
class Series:
    """How many series the families with this prefix have."""

    prefix: str

    def of(self, page: Scrape) -> float:
        return len(page.beginning(self.prefix))


@dataclass(frozen=True)
class Total:
    """The sum of all samples of the families with this prefix; when they began does not count."""

    prefix: str

    def of(self, page: Scrape) -> float:
        return sum(s.value for s in page.beginning(self.prefix) if not s.name.endswith("_created"))


Measure = Count | Labelled | Series | Total


def own(sample: str, **where: str) -> Count:
    """A sample of one of our families, without their common prefix."""
    return Count(catalog.PREFIX + sample, {label: (value,) for label, value in where.items()})


def events(*hooks: str) -> Count:
    """How many events of these hooks reached the exporter."""
    where = {"hook": tuple(f"omni_{hook}" for hook in hooks)}
    return Count(f"{catalog.PREFIX}metrics_events_total", where)


def unmeasured(*stems: str) -> Count:
    """Samples of these families that could not be measured, and were counted as such."""
    where = {"family": tuple(catalog.BY_STEM[stem].name for stem in stems)}
    return Count(f"{catalog.PREFIX}metrics_missing_samples_total", where)
