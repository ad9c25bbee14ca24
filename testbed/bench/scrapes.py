"""What a scrape costs: every family at 64 stage replicas, and what the event loop feels of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, make_asgi_app

from testbed.bench import Figure, SideBySide
from testbed.bench.engine import engine_config, families
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families, RegistryCollector
from vllm_omni_metrics_plugin.exposition import Answers
from vllm_omni_metrics_plugin.exposition.page import Page
from vllm_omni_metrics_plugin.hooks import HookRegistry

_STAGES = 4
_REPLICAS = 64
#: Half of them with a scrape at their beginning.
_WINDOWS = 40
_WINDOW_SECONDS = 0.5
_TICK_SECONDS = 0.001
_SCOPE = {"type": "http", "method": "GET", "path": "/metrics/", "headers": [], "query_string": b""}


def figures(side_by_side: SideBySide) -> list[Figure]:
    registry = _registry()
    page = Page(registry)
    assert b"".join(page.text()) == generate_latest(registry)

    def anew() -> None:
        for family in page._lines.values():
            if family is not None:
                for child in family._by_child.values():
                    child._seen = None
        page.text()

    lines = b"".join(page.text()).count(b"\n")
    size = f"{_REPLICAS} stage replicas, {lines:,} lines"
    written, generated = side_by_side(anew, lambda: generate_latest(registry), 1)
    again, _ = side_by_side(page.text, page.text, 1)
    stall, without = _stalls(Answers().application(registry, make_asgi_app(registry)))
    engines, _ = _stalls(make_asgi_app(registry))
    return [
        ("scrape_vs_generate_latest", written / generated, "<= 0.1", f"{size}, every value anew"),
        ("scrape_again_vs_generate_latest", again / generated, "-", "no value has changed"),
        ("scrape_ms", 1e3 * written, "-", "every value anew"),
        ("loop_stall_ms", 1e3 * stall, "-", "the longest while one is scraped"),
        ("loop_stall_without_ms", 1e3 * without, "-", "the longest in as much time without"),
        ("loop_stall_engine_ms", 1e3 * engines, "-", "as the engine answers for /metrics/"),
    ]


def _registry() -> CollectorRegistry:
    """vLLM's families and the catalogue's, with a series each for every replica."""
    from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

    each = _REPLICAS // _STAGES
    members = {number: (str(number // each), str(number % each)) for number in range(_REPLICAS)}
    StageStatLogger(engine_config(), members, HookRegistry().hooks)
    registry = CollectorRegistry()
    for family in families():
        registry.register(family)
    ours = Families({})
    for number, (stage, replica) in members.items():
        of = {"stage": stage, "replica": replica, "from_stage": stage, "from_replica": replica}
        for family in catalog.FAMILIES:
            labels = (of.get(name, f"a usual {name}") for name in family.labels)
            child = ours[family.stem].labels(*labels)
            (child.observe if family.kind == "histogram" else child.inc)(0.1 + number / 7)
    registry.register(RegistryCollector(ours.registry, lambda: None))
    return registry


def _stalls(application: Callable[..., Coroutine[Any, Any, None]]) -> tuple[float, float]:
    """Seconds for which a loop does not come back at most, in windows with a scrape and without."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: object) -> None: ...

    async def measure() -> tuple[float, float]:
        longest: tuple[list[float], list[float]] = ([], [])
        for window in range(_WINDOWS):
            scrape = None
            if window % 2 == 0:
                scrape = asyncio.ensure_future(application(dict(_SCOPE), receive, send))
            late = [0.0]
            end = time.perf_counter() + _WINDOW_SECONDS
            while (began := time.perf_counter()) < end:
                await asyncio.sleep(_TICK_SECONDS)
                late.append(time.perf_counter() - began - _TICK_SECONDS)
            longest[window % 2].append(max(late))
            if scrape is not None:
                await scrape
        return statistics.median(longest[0]), statistics.median(longest[1])

    return asyncio.run(measure())
