"""What the relabelled stat logger costs, next to vLLM's own with as many engines."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from testbed.bench import Figure, SideBySide
from testbed.paths import MODELS
from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.patches.engine_families.relabel import Engines, relabelled

_REPLICAS = 16


def figures(side_by_side: SideBySide) -> list[Figure]:
    """(name, value, budget, how it was measured); ``side_by_side`` takes calls per round."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    return [_labels(side_by_side), *_logger(side_by_side)]


def _labels(side_by_side: SideBySide) -> Figure:
    registry = CollectorRegistry()
    engines = Engines()
    engines.add(0, "1", "0")
    _, relabelled_counter, _ = relabelled(engines)
    ours = relabelled_counter("ours", "-", ["model_name", "engine", "reason"], registry=registry)
    plain = Counter("plain", "-", ["model_name", "stage", "replica", "reason"], registry=registry)
    one, other = side_by_side(
        lambda: ours.labels("model", "0", "stop"),
        lambda: plain.labels("model", "1", "0", "stop"),
        20_000,
    )
    return "labels_vs_plain", one / other, "<= 1.3", "with an engine to look up"


def _logger(side_by_side: SideBySide) -> list[Figure]:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

    from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

    config = EngineArgs(
        model=str(MODELS / "llm"), max_model_len=512, enforce_eager=True
    ).create_engine_config()
    members = {n: (str(n // 4), str(n % 4)) for n in range(_REPLICAS)}

    scheduler = SchedulerStats(num_running_reqs=3, kv_cache_usage=0.5)
    iteration: Any = IterationStats()
    iteration.num_generation_tokens = 4
    iteration.inter_token_latencies_iter = [0.01, 0.02, 0.03, 0.04]
    iteration.time_to_first_tokens_iter = [0.2]

    def recording(logger: Any) -> Callable[[], None]:
        engines = itertools.cycle(members)
        return lambda: logger.record(scheduler, iteration, engine_idx=next(engines))

    plain = PrometheusStatLogger(config, list(members))
    ours = StageStatLogger(config, members, HookRegistry().hooks)
    # It takes the other's families out of the registry.
    one, other = side_by_side(recording(ours), recording(plain), 2_000)
    relabelled_families, plain_families = _shown(), _copied()
    scrape, generate = side_by_side(
        lambda: generate_latest(relabelled_families), lambda: generate_latest(plain_families), 3
    )
    return [
        ("record_vs_upstream", one / other, "<= 1.10", "record() of one batch"),
        (
            "scrape_vs_generate_latest",
            scrape / generate,
            "<= 1.1",
            f"{_REPLICAS} stage replicas, against plain families with the same series",
        ),
    ]


def _families() -> list[Any]:
    """vLLM's families in the default registry."""
    return [
        collector
        for collector in list(REGISTRY._collector_to_names)
        if getattr(collector, "_name", "").startswith("vllm:")
    ]


def _shown() -> CollectorRegistry:
    registry = CollectorRegistry()
    for family in _families():
        registry.register(family)
    return registry


def _copied() -> CollectorRegistry:
    """The same series again, made by prometheus_client's own classes."""
    registry = CollectorRegistry()
    for family in _families():
        kind = next(cls for cls in (Gauge, Counter, Histogram) if isinstance(family, cls))
        copy = kind(family._name, "-", family._labelnames, registry=registry, **family._kwargs)
        for labels in family._metrics:
            copy.labels(*labels)
    return registry
