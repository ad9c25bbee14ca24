"""Reading /metrics as a client would."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Key = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples of one scrape, or the difference of two."""

    def __init__(self, samples: Mapping[Key, float]) -> None:
        self._samples = samples

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with exactly these labels; None if there is none."""
        return self._samples.get((name, frozenset(labels.items())))

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have at least these labels; 0 if none."""
        wanted = labels.items()
        return sum(v for (n, has), v in self._samples.items() if n == name and wanted <= has)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Like :meth:`sum`, split by the values of ``label``; zeros are left out."""
        split: dict[str, float] = {}
        for (sample, has), value in self._samples.items():
            if sample == name and labels.items() <= has and value:
                key = dict(has).get(label, "")
                split[key] = split.get(key, 0.0) + value
        return split

    def names(self, prefix: str = "") -> set[str]:
        return {name for name, _ in self._samples if name.startswith(prefix)}

    def label_sets(self, name: str) -> list[dict[str, str]]:
        return [dict(has) for sample, has in self._samples if sample == name]

    def __sub__(self, earlier: Scrape) -> Scrape:
        """What has been added since ``earlier``; meant for counters and histograms."""
        return Scrape({k: v - earlier._samples.get(k, 0.0) for k, v in self._samples.items()})

    def __repr__(self) -> str:
        lines = (
            f"{name}{{{','.join(f'{k}={v}' for k, v in sorted(labels))}}} {value:g}"
            for (name, labels), value in sorted(self._samples.items(), key=str)
            if name.startswith("vllm:omni_") and "_bucket" not in name and "_created" not in name
        )
        return "\n".join(lines)


def scrape(url: str) -> Scrape:
    """Fetch and parse ``url``/metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        return parse(response.read().decode())


def parse(text: str) -> Scrape:
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )
