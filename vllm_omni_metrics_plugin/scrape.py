"""Reading a running server's ``/metrics`` from outside; nothing else in this project does."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from vllm_omni_metrics_plugin import catalog

#: A loaded server takes a while to answer; commands that people wait for ask for less.
_SECONDS = 30.0


class NoAnswerError(Exception):
    """There is no server at the address, or it has no metrics; the message says which."""


@dataclass(frozen=True)
class Access:
    """What a server asks of those who read its metrics."""

    #: Name and value of each header to send; none goes along when the server sends us elsewhere.
    headers: tuple[tuple[str, str], ...] = ()
    #: File with the certificates of those who may vouch for the server; None for the system's.
    cacert: str | None = None


class Sample(NamedTuple):
    """One line of ``/metrics``."""

    name: str
    labels: Mapping[str, str]
    value: float
    #: The family's type as the page states it: counter, gauge, histogram, ..., or unknown.
    kind: str = "unknown"


class Scrape:
    """The samples of one look at ``/metrics``, or the difference of two; immutable.

    Samples are found by name at once, by labels among those of their name.
    """

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def __iter__(self) -> Iterator[Sample]:
        for samples in self._by_name.values():
            yield from samples

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with exactly these labels; None if there is none."""
        return next((s.value for s in self.named(name) if s.labels == labels), None)

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have at least these labels; 0 if none."""
        return sum((sample.value for sample in self._matching(name, labels)), 0.0)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Like :meth:`sum`, split by the values of ``label``; zeros are left out."""
        split: dict[str, float] = {}
        for sample in self._matching(name, labels):
            if sample.value:
                key = sample.labels.get(label, "")
                split[key] = split.get(key, 0.0) + sample.value
        return split

    def names(self, prefix: str = "") -> set[str]:
        """Sample names: a histogram's end in ``_bucket``, ``_sum`` and ``_count``."""
        return {name for name in self._by_name if name.startswith(prefix)}

    def label_sets(self, name: str) -> list[dict[str, str]]:
        return [dict(sample.labels) for sample in self.named(name)]

    def named(self, name: str) -> list[Sample]:
        return self._by_name.get(name, [])

    def beginning(self, prefix: str) -> list[Sample]:
        """All samples whose names begin so."""
        return [
            sample
            for name in self._by_name
            if name.startswith(prefix)
            for sample in self._by_name[name]
        ]

    def renamed(self, rename: Callable[[str], str]) -> Scrape:
        """The same samples under other names."""
        return Scrape(sample._replace(name=rename(sample.name)) for sample in self)

    @property
    def has_plugin(self) -> bool:
        """Whether the plugin publishes its families there."""
        return any(name.startswith(f"{catalog.PREFIX}metrics_") for name in self._by_name)

    def __sub__(self, earlier: Scrape) -> Scrape:
        """What has been added since ``earlier``; meant for counters and histograms."""
        before = {_series(sample): sample.value for sample in earlier}
        return Scrape(
            sample._replace(value=sample.value - before.get(_series(sample), 0.0))
            for sample in self
        )

    def __repr__(self) -> str:
        """The plugin's samples, for the message of a test that fails."""
        shown = (
            f"{name}{{{','.join(f'{k}={v}' for k, v in sorted(labels.items()))}}} {value:g}"
            for name, labels, value, _ in self.beginning(catalog.PREFIX)
            if not name.endswith(("_bucket", "_created"))
        )
        return "\n".join(sorted(shown))

    def _matching(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        wanted = labels.items()
        return (s for s in self.named(name) if wanted <= s.labels.items())


def parse(text: str) -> Scrape:
    """Raises ValueError for what is not in Prometheus' text format."""
    return Scrape(
        Sample(sample.name, sample.labels, sample.value, family.type)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def address(url: str) -> str:
    """Where the metrics of the server at ``url`` are; the page itself may be named, too."""
    is_page = url.rstrip("/").endswith("/metrics")
    return url if is_page else f"{url.rstrip('/')}/metrics"


def fetch(url: str, timeout_seconds: float = _SECONDS, access: Access | None = None) -> str:
    """What the server at ``url`` shows there; raises :class:`NoAnswerError`."""
    return get(address(url), timeout_seconds, access)


def get(where: str, timeout_seconds: float = _SECONDS, access: Access | None = None) -> str:
    """What stands at an address; raises :class:`NoAnswerError`."""
    access = access or Access()
    try:
        request = urllib.request.Request(where)
        for name, value in access.headers:
            request.add_unredirected_header(name, value)
        with _opener(where, access).open(request, timeout=timeout_seconds) as response:
            text: str = response.read().decode()
    except (OSError, ValueError, http.client.HTTPException) as error:
        shown = where.partition("?")[0]
        raise NoAnswerError(f"{shown} does not answer ({error})") from None
    return text


def read(text: str, url: str) -> Scrape:
    """The samples in what :func:`fetch` found at ``url``; raises :class:`NoAnswerError`."""
    try:
        return parse(text)
    except ValueError as error:
        raise NoAnswerError(f"{address(url)} shows no metrics ({error})") from None


def scrape(url: str, timeout_seconds: float = _SECONDS, access: Access | None = None) -> Scrape:
    """Fetch ``url``/metrics; raises :class:`NoAnswerError`."""
    return read(fetch(url, timeout_seconds, access), url)


def _opener(url: str, access: Access) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = []
    if _is_loopback(urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy's loopback is another one
    if access.cacert is not None:
        try:
            context = ssl.create_default_context(cafile=access.cacert)
        except OSError as error:
            raise ValueError(f"{access.cacert} holds no certificates: {error}") from None
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _series(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())
