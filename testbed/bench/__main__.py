"""``make bench``: what the plugin costs, as ratios of two things measured side by side.

And what the backlog is worth, as ratios of what it says to what is.
"""

from __future__ import annotations

import argparse
import functools
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
    transfers,
)
from testbed.clients import audio
from testbed.server import Server
from vllm_omni_metrics_plugin.tables import aligned

_ROUNDS = 15
_CALLS = 20_000
_PAIRS = 20
_REQUESTS = 12


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
    for part in (hooks, engine, schedulers, transfers, http, listener):
        for figure in part.figures(_side_by_side):
            figures.add(*figure)
    for figure in routing.figures():
        figures.add(*figure)
    if not options.no_servers:
        _serving(figures)
        figures.add(*images.figure())
        for figure in drain.figures():
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


def _serving(figures: Figures) -> None:
    print("starting a server with the plugin and one without", flush=True)
    with Server(env={"VLLM_OMNI_METRICS": "1"}) as on, Server() as off:
        for server in (on, off) * 2:
            _batch(server)
        totals: list[float] = []
        firsts: list[float] = []
        for pair in range(_PAIRS):
            batches = {}
            for server in (on, off) if pair % 2 else (off, on):
                batches[server.port] = _batch(server)
            with_plugin, without = batches[on.port], batches[off.port]
            totals.append(with_plugin[0] / without[0])
            firsts.append(with_plugin[1] / without[1])
            print(f"  pair {pair + 1}: time {totals[-1]:.3f}, first packet {firsts[-1]:.3f}")
    pairs = f"median of {_PAIRS} alternating pairs, {_REQUESTS} requests, 4 at once"
    figures.add("serve_on_vs_off", statistics.median(totals), "< 1.03", pairs)
    figures.add("first_packet_on_vs_off", statistics.median(firsts), "< 1.03", pairs)


def _batch(server: Server) -> tuple[float, float]:
    """Seconds for a batch of requests, and their median first packet."""
    ask = functools.partial(audio.speech, server.url, tokens=40, stream="audio", seed=7)
    began = time.perf_counter()
    answers = audio.together([ask] * _REQUESTS, at_once=4)
    total = time.perf_counter() - began
    return total, statistics.median(answer.first_audio_seconds or 0.0 for answer in answers)


if __name__ == "__main__":
    sys.exit(main())
