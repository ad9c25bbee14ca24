"""An independent client that reads a page of metrics as routers do.

Some take the first sample of a name, some the last, some the sum; none of them knows stages or
replicas. The first is what llm-d's endpoint picker takes: the youngest of those that match, and of
equally young ones the first; of gauges and counters alone, anything else is 0 to it.
"""

from __future__ import annotations

import re
import urllib.request
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 30.0
_SPEC = re.compile(r"(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)\s*=\s*"?([^",}]*)"?')


class Reading(NamedTuple):
    """What each kind of router takes for the number of one name."""

    first: float
    last: float
    sum: float


class Page:
    """One look at ``/metrics``."""

    def __init__(self, text: str) -> None:
        self._families = list(text_string_to_metric_families(text))

    @classmethod
    def of(cls, url: str) -> Page:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_SECONDS) as answer:
            return cls(answer.read().decode())

    def read(self, spec: str) -> Reading:
        """``spec`` is a name, and labels in braces if any; raises LookupError without a sample."""
        parts = _SPEC.fullmatch(spec)
        if parts is None:
            raise LookupError(f"{spec!r} is no name of samples")
        wanted = set(_LABEL.findall(parts["labels"] or ""))
        found = [
            (sample.timestamp or 0, sample.value if family.type in ("gauge", "counter") else 0.0)
            for family in self._families
            for sample in family.samples
            if sample.name == parts["name"] and wanted <= set(sample.labels.items())
        ]
        if not found:
            raise LookupError(f"no sample of {spec}")
        values = [value for _, value in found]
        return Reading(max(found, key=lambda one: one[0])[1], values[-1], sum(values))
