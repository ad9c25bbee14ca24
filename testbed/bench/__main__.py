"""``make bench``: what the plugin costs, as ratios of two things measured side by side.

And what the backlog is worth, as ratios of what it says to what is.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable

from testbed.bench import (
    drain,
    engine,
    hooks,
    http,
    images,
    listener,
    routing,
    schedulers,
    scrapes,
    speech,
    traces,
    transfers,
)
from vllm_omni_metrics_plugin.tables import aligned

_ROUNDS = 15
_CALLS = 20_000


class Figures:
    """The figures of one run, by their stable names."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str, str]] = []

    def add(self, name: str, value: float, budget: str, how: str) -> None:
        self.rows.append((name, value, budget, how))

    def show(self) -> None:
        rows = [(name, f"{value:.3g}", budget, how) for name, value, budget, how in self.rows]
        print(aligned(("FIGURE", "VALUE", "BUDGET", "MEASURED"), rows, right=(1,)))
        for name, value, _, _ in self.rows:
            print(f"bench {name} {value:.4g}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--no-servers", action="store_true", help="only what needs no server")
    options = parser.parse_args()
    figures = Figures()
    for part in (hooks, engine, schedulers, transfers, http, listener, scrapes):
        for figure in part.figures(_side_by_side):
            figures.add(*figure)
    for figure in routing.figures():
        figures.add(*figure)
    if not options.no_servers:
        for served in (speech, images, traces, drain):
            for figure in served.figures():
                figures.add(*figure)
    figures.show()
    return 0


def _side_by_side(
    one: Callable[[], object], other: Callable[[], object], calls: int = _CALLS
) -> tuple[float, float]:
    """Median seconds per call of each, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    gc.disable()
    try:
        for _ in range(_ROUNDS):
            for function, times in zip((one, other), seconds, strict=True):
                began = time.perf_counter()
                for _ in range(calls):
                    function()
                times.append((time.perf_counter() - began) / calls)
    finally:
        gc.enable()
    return statistics.median(seconds[0]), statistics.median(seconds[1])


if __name__ == "__main__":
    sys.exit(main())
