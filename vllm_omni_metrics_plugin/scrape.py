"""Reading a running server's ``/metrics`` from outside."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from vllm_omni_metrics_plugin import catalog

_SECONDS = 5.0


class NoAnswerError(Exception):
    """There is no server at the address, or it has no metrics; the message says which."""


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


class Scrape:
    """The samples of one look at ``/metrics``."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def named(self, name: str) -> list[Sample]:
        return self._by_name.get(name, [])

    def beginning(self, prefix: str) -> list[Sample]:
        """All samples whose names begin so."""
        return [
            sample
            for name, samples in self._by_name.items()
            if name.startswith(prefix)
            for sample in samples
        ]

    @property
    def has_plugin(self) -> bool:
        """Whether the plugin publishes its families there."""
        return bool(self.beginning(f"{catalog.PREFIX}metrics_"))


def parse(text: str) -> Scrape:
    """Raises ValueError for what is not in Prometheus' text format."""
    return Scrape(
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def address(url: str) -> str:
    """Where the metrics of the server at ``url`` are."""
    return f"{url.rstrip('/')}/metrics"


def fetch(url: str, timeout_seconds: float = _SECONDS) -> str:
    """What the server at ``url`` shows there; raises :class:`NoAnswerError`."""
    try:
        with urllib.request.urlopen(address(url), timeout=timeout_seconds) as response:
            text: str = response.read().decode()
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"{address(url)} does not answer ({error})") from None
    return text


def scrape(url: str) -> Scrape:
    """Fetch ``url``/metrics; raises :class:`NoAnswerError`."""
    text = fetch(url)
    try:
        return parse(text)
    except ValueError as error:
        raise NoAnswerError(f"{address(url)} shows no metrics ({error})") from None
