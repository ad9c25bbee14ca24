"""A script: one stream of engine statistics into vLLM's stat logger and into ours; prints JSON.

It runs by itself so that the vLLM to compare with can be any release that is on its path.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import vllm
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine import FinishReason
from vllm.v1.metrics import loggers, stats
from vllm.v1.metrics.utils import create_metric_per_engine
from vllm.v1.spec_decode.metrics import SpecDecodingStats

from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

MEMBERS = {0: ("0", "0"), 1: ("1", "0"), 2: ("1", "1")}
RECORDS = 400
SPECULATIVE_TOKENS = 3


class ConnectorMetrics(KVConnectorPromMetrics):
    """Families bound for each engine at once, for each engine and label, and only when observed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sent = self._counter_cls(
            name="vllm:test_kv_bytes", documentation="-", labelnames=self._labelnames
        )
        self.sent = create_metric_per_engine(sent, self.per_engine_labelvalues)
        moved = self._counter_cls(
            name="vllm:test_kv_moves", documentation="-", labelnames=[*self._labelnames, "type"]
        )
        self.moved = {
            (engine, kind): moved.labels(*labels, kind)
            for engine, labels in self.per_engine_labelvalues.items()
            for kind in ("load", "store")
        }
        self.seconds = self._histogram_cls(
            name="vllm:test_kv_seconds",
            documentation="-",
            labelnames=[*self._labelnames, "direction"],
        )

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        self.sent[engine_idx].inc(transfer_stats_data["bytes"])
        self.moved[engine_idx, "load"].inc()
        labels = [*self.per_engine_labelvalues[engine_idx], transfer_stats_data["direction"]]
        self.seconds.labels(*labels).observe(transfer_stats_data["seconds"])


class Connector:
    @staticmethod
    def build_prom_metrics(*args: Any) -> ConnectorMetrics:
        return ConnectorMetrics(*args)


def engine_config(model: str) -> Any:
    speculative = {
        "method": "ngram",
        "num_speculative_tokens": SPECULATIVE_TOKENS,
        "prompt_lookup_max": 3,
    }
    config = EngineArgs(
        model=model, max_model_len=512, enforce_eager=True, speculative_config=speculative
    ).create_engine_config()
    config.kv_transfer_config = KVTransferConfig(kv_connector="Test", kv_role="kv_both")
    config.observability_config.kv_cache_metrics = True
    KVConnectorFactory.get_connector_class = lambda *_: Connector
    return config


def filled(cls: type, chance: random.Random, **given: Any) -> Any:
    """An instance with a number in each field of numbers, but for those that are given."""
    made = cls(**given)
    for field in dataclasses.fields(cls):
        value = getattr(made, field.name)
        if field.name in given or isinstance(value, bool):
            continue
        if isinstance(value, int):
            setattr(made, field.name, chance.randrange(1, 50))
        elif isinstance(value, float):
            setattr(made, field.name, chance.choice([0.001, 0.04, 0.9, 7.0, 300.0]))
    return made


def scheduler_stats(chance: random.Random) -> Any:
    speculation = SpecDecodingStats.new(SPECULATIVE_TOKENS)
    for _ in range(chance.randrange(4)):
        speculation.observe_draft(SPECULATIVE_TOKENS, chance.randrange(SPECULATIVE_TOKENS + 1))
    return filled(
        stats.SchedulerStats,
        chance,
        prefix_cache_stats=filled(stats.PrefixCacheStats, chance),
        connector_prefix_cache_stats=chance.choice([None, filled(stats.PrefixCacheStats, chance)]),
        kv_cache_eviction_events=[stats.KVCacheEvictionEvent(3.0, 0.5, (0.1, 20.0))],
        spec_decoding_stats=chance.choice([None, speculation]),
        kv_connector_stats=chance.choice(
            [None, {"bytes": chance.randrange(9000), "seconds": 0.02, "direction": "out"}]
        ),
    )


def iteration_stats(chance: random.Random) -> Any:
    made = stats.IterationStats()
    made.num_generation_tokens = chance.randrange(100)
    made.num_preempted_reqs = chance.randrange(3)
    made.max_num_generation_tokens_iter = [chance.randrange(1, 500)]
    made.n_params_iter = [1, chance.randrange(1, 9)]
    made.time_to_first_tokens_iter = [chance.random() * 3]
    made.inter_token_latencies_iter = [chance.random() / 9 for _ in range(4)]
    made.prompt_token_stats = filled(stats.PromptTokenStats, chance)
    made.finished_requests = [
        filled(
            stats.FinishedRequestStats,
            chance,
            finish_reason=chance.choice(list(FinishReason)),
            max_tokens_param=chance.choice([None, 64]),
        )
        for _ in range(chance.randrange(4))
    ]
    return made


def stream() -> Iterator[tuple[Any, Any, Any, int]]:
    chance = random.Random(0)
    for _ in range(RECORDS):
        yield (
            chance.choice([None, scheduler_stats(chance)]),
            chance.choice([None, iteration_stats(chance)]),
            chance.choice([None, filled(stats.MultiModalCacheStats, chance)]),
            chance.choice(list(MEMBERS)),
        )


def exposition() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(REGISTRY).decode())
        for sample in family.samples
        if sample.name.startswith("vllm:") and not sample.name.endswith("_created")
    }


def mapped(
    upstream: dict[tuple[str, frozenset[tuple[str, str]]], float],
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    result = {}
    for (name, labels), value in upstream.items():
        said = dict(labels)
        if "engine" in said:
            said["stage"], said["replica"] = MEMBERS[int(said.pop("engine"))]
        result[name, frozenset(said.items())] = value
    return result


def families() -> dict[str, bool]:
    """By name: whether a family that is registered has an engine label."""
    return {
        collector._name: "engine" in collector._labelnames
        for collector in list(REGISTRY._collector_to_names)
        if isinstance(collector, MetricWrapperBase) and collector._name.startswith("vllm:")
    }


def main(model: str) -> None:
    config = engine_config(model)

    plain = loggers.PrometheusStatLogger(config, list(MEMBERS))
    plain.log_engine_initialized()
    for scheduler, iteration, cache, engine in stream():
        plain.record(scheduler, iteration, cache, engine)
    theirs, their_families = mapped(exposition()), families()

    ours_logger = StageStatLogger(config, MEMBERS, HookRegistry().hooks)
    ours_logger.log_engine_initialized()
    for scheduler, iteration, cache, engine in stream():
        ours_logger.record(scheduler, iteration, cache, engine)
    ours, our_families = exposition(), families()

    different = [key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)]
    report = {
        "version": vllm.__version__,
        "samples": len(theirs),
        "nonzero": sum(bool(value) for value in theirs.values()),
        "families": their_families,
        "missing": sorted(their_families.keys() - our_families.keys()),
        "with_engine_label": sorted(name for name, has in our_families.items() if has),
        "different": [(str(key), theirs.get(key), ours.get(key)) for key in different[:10]],
    }
    print("REPORT", json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
