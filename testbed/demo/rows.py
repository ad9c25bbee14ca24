"""What ``make demo`` compares: figures of /metrics beside what a client knows, one a row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import Scrape, scrape
from vllm_omni_metrics_plugin.tables import aligned

#: Durations may differ by this much or this share per request, whichever is larger.
_APART_SECONDS = 0.015
_APART_SHARE = 0.05
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """One figure, as /metrics says it and as the client knows it."""

    family: str
    server: float
    client: float
    #: How far apart the two may be.
    allowed: float = 0.0
    #: The client cannot know more than a lower bound.
    at_least: bool = False

    @property
    def agrees(self) -> bool:
        if self.at_least:
            return self.server >= self.client
        return abs(self.server - self.client) <= self.allowed + 1e-6

    @property
    def verdict(self) -> str:
        if not self.agrees:
            return "differ"
        if self.at_least:
            return "at least"
        return "within tolerance" if self.allowed else "equal"


def gained_row(gained: Scrape, family: str, truth: float, apart: Sequence[float] = ()) -> Row:
    """One sample's growth beside the truth; ``apart`` are the durations that are in it."""
    allowed = sum(max(_APART_SECONDS, _APART_SHARE * seconds) for seconds in apart)
    return Row(family, gained.sum(f"vllm:omni_{family.replace(' ', '_')}"), truth, allowed)


def idle_rows(page: Scrape) -> list[Row]:
    """What /metrics must say when nothing is going on."""
    return [
        Row(f"{family}, idle", page.sum(f"vllm:omni_{family}"), 0)
        for family in ("num_requests_running", "num_requests_waiting")
    ]


def table(rows: Sequence[Row]) -> str:
    """One line per figure; the families without the ``vllm:omni_`` that all begin with."""
    lines = [(row.family, _figure(row.server), _figure(row.client), row.verdict) for row in rows]
    return aligned(("FAMILY", "/METRICS", "CLIENT", ""), lines, right=(1, 2))


def settled(server: Server) -> Scrape:
    """/metrics once nothing is running any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        page = scrape(server.url)
        if not page.sum("vllm:omni_num_requests_running") or time.monotonic() > deadline:
            return page
        time.sleep(0.1)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == round(value, 6) == int(value) else f"{value:.3f}"
