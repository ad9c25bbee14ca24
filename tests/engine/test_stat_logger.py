"""Our stat logger on vLLM's own: members that come and go, faults, and what it is built from."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from testbed.paths import MODELS
from vllm_omni_metrics_plugin.hooks import EngineStats
from vllm_omni_metrics_plugin.patches.engine_families import stats
from vllm_omni_metrics_plugin.patches.state import EngineState

TTFT = "vllm:time_to_first_token_seconds_count"
DONE = "vllm:request_success_total"
RUNNING = "vllm:num_requests_running"


@pytest.fixture(scope="module")
def upstream(engine_modules: Any) -> Any:
    from tests.engine import against_upstream

    return against_upstream


@pytest.fixture(scope="module")
def config(upstream: Any) -> Any:
    return upstream.engine_config(str(MODELS / "llm"))


@pytest.fixture
def make(hooks: Any, config: Any) -> Iterator[Any]:
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

    yield lambda members: StageStatLogger(config, members, hooks)
    unregister_vllm_metrics()


def shown(name: str) -> dict[tuple[str, str], float]:
    """The sums of a sample by stage and replica."""
    sums: dict[tuple[str, str], float] = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name == name and "stage" in sample.labels:
                member = sample.labels["stage"], sample.labels["replica"]
                sums[member] = sums.get(member, 0.0) + sample.value
    return sums


def series(stage: str, replica: str) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Everything that is shown of a replica, with its other labels."""
    return {
        (sample.name, frozenset(i for i in sample.labels.items() if i[0] != "replica"))
        for family in REGISTRY.collect()
        for sample in family.samples
        if (sample.labels.get("stage"), sample.labels.get("replica")) == (stage, replica)
    }


def finished(upstream: Any) -> Any:
    """Statistics of one batch in which one request got its first token and ended."""
    chance = random.Random(1)
    stats = upstream.iteration_stats(chance)
    one = upstream.filled(
        upstream.stats.FinishedRequestStats,
        chance,
        finish_reason=upstream.FinishReason.STOP,
        max_tokens_param=8,
    )
    stats.finished_requests = [one]
    return stats


def test_replica_that_joins_has_every_series_of_the_others(make: Any, upstream: Any) -> None:
    logger = make({0: ("0", "0"), 1: ("1", "0")})
    logger.record(upstream.scheduler_stats(random.Random(2)), finished(upstream), engine_idx=1)
    before = shown(TTFT)
    logger.register_replica(2, "1", "1")

    bound_at_once = {
        item for item in series("1", "0") if not item[0].startswith("vllm:test_kv_seconds")
    }
    assert series("1", "1") == bound_at_once
    assert {name for name, _ in series("1", "1")} >= {
        DONE,
        "vllm:prompt_tokens_by_source_total",
        "vllm:num_requests_waiting_by_reason",
        "vllm:engine_sleep_state",
        "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        "vllm:estimated_flops_per_gpu_total",
        "vllm:test_kv_bytes_total",
        "vllm:test_kv_moves_total",
    }
    assert {**before, ("1", "1"): 0.0} == shown(TTFT), "the others are not reset"

    logger.record(upstream.scheduler_stats(random.Random(3)), finished(upstream), engine_idx=2)
    assert shown(DONE)["1", "1"] == 1
    moves = "vllm:test_kv_moves_total"
    earlier = shown(moves)
    moving = upstream.scheduler_stats(random.Random(3))
    moving.kv_connector_stats = {"bytes": 5, "seconds": 0.1, "direction": "in"}
    logger.record(moving, None, engine_idx=2)
    assert shown(moves) == {**earlier, ("1", "1"): earlier["1", "1"] + 1}


def test_first_replica_to_join_brings_the_families(make: Any, upstream: Any) -> None:
    logger = make({})
    assert shown(RUNNING) == {}
    logger.register_replica(0, "0", "0")
    logger.record(None, finished(upstream), engine_idx=0)
    assert shown(DONE) == {("0", "0"): 1}


def test_replica_that_left_is_at_rest_whatever_comes_late_and_awake_when_it_returns(
    make: Any, upstream: Any
) -> None:
    logger = make({0: ("0", "0"), 1: ("1", "0")})
    running = logger.gauge_scheduler_running[1]
    awake = logger.gauge_engine_sleep_state["awake"][1]
    busy = upstream.scheduler_stats(random.Random(2))
    busy.num_running_reqs = 3
    logger.record(busy, None, engine_idx=1)
    assert (running._value.get(), awake._value.get()) == (3, 1)

    logger.withdraw_replica("1", "0")
    logger.record(busy, None, engine_idx=1)
    # Several API servers would show for good what these hold.
    assert (running._value.get(), awake._value.get()) == (0, 0)

    logger.register_replica(1, "1", "0")
    assert (running._value.get(), awake._value.get()) == (0, 1)


def test_two_loggers_do_not_see_each_others_numbers(make: Any, upstream: Any) -> None:
    first = make({0: ("0", "0"), 1: ("1", "0")})
    second = make({0: ("5", "7")})
    second.record(None, finished(upstream), engine_idx=0)
    first.record(None, finished(upstream), engine_idx=1)
    assert shown(DONE) == {("5", "7"): 1}, "the second's families took the first's place"
    assert first.per_engine_labelvalues[1][1:] == ["1", "0"]


@pytest.mark.parametrize("engine", [7, "x", None])
def test_recording_never_raises(make: Any, upstream: Any, log: Any, engine: Any) -> None:
    logger = make({0: ("0", "0")})
    for _ in range(2):
        logger.record(upstream.scheduler_stats(random.Random(0)), None, engine_idx=engine)
    logger.record(object(), object(), engine_idx=0)
    assert len(log.messages) == 1, "logged once"


def test_what_a_release_adds_to_a_record_reaches_vllms_logger(
    make: Any, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    logger, got = make({0: ("0", "0")}), []
    monkeypatch.setattr(
        PrometheusStatLogger, "record", lambda _, *args, **kwargs: got.append((args, kwargs))
    )
    logger.record(None, None, None, 0, "by position", by_name="by name")
    assert got == [((None, None, None, 0, "by position"), {"by_name": "by name"})]
    assert log.messages == []


def test_helper_that_fails_takes_no_other_numbers_with_it(
    make: Any, upstream: Any, log: Any
) -> None:
    logger = make({0: ("0", "0")})
    stats = upstream.scheduler_stats(random.Random(0))
    stats.kv_connector_stats = {"of": "another connector"}
    for _ in range(2):
        logger.record(stats, finished(upstream), engine_idx=0)
    assert shown(DONE) == {("0", "0"): 2}
    assert shown(TTFT) == {("0", "0"): 2}
    assert len(log.messages) == 1
    assert "KVConnectorProm" in log.messages[0]


def test_joining_never_raises(make: Any, log: Any) -> None:
    logger = make({0: ("0", "0")})
    logger.register_replica(0, "1", "0")
    assert len(log.messages) == 1
    assert "engine 0 is stage 0 replica 0 already" in str(log.records[0].exc_info[1])
    assert set(shown(RUNNING)) == {("0", "0")}


def test_listener_is_told_of_each_record(make: Any, upstream: Any, recorder: Any) -> None:
    logger = make({0: ("1", "3")})
    stats = finished(upstream)
    logger.record(None, stats, engine_idx=0)
    event = recorder.only(EngineStats)
    assert (event.stage, event.replica) == (1, 3)
    assert event.iteration_stats is stats
    assert event.scheduler_stats is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "record", "record"]), st.integers(0, 5)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=1000)
@given(steps=STEPS)
def test_no_sequence_of_joins_and_leaves_loses_a_count(
    many: Any, steps: list[tuple[str, int]]
) -> None:
    """Over one logger throughout, so that the sequences also follow one another."""
    logger, record, members, counts, gone = many
    for step, engine in steps:
        member = ("1", str(engine))
        if step == "join":
            logger.register_replica(engine, *member)
            members.add(engine)
            gone.discard(engine)
        elif step == "leave" and engine in members:
            logger.withdraw_replica(*member)
            gone.add(engine)
        elif step == "record" and engine in members:
            record(engine)
            counts[engine] = counts.get(engine, 0) + 1
    expected = {("1", str(e)): counts.get(e, 0) for e in members - gone}
    assert {
        (s.labels["stage"], s.labels["replica"]): s.value
        for s in next(iter(REGISTRY._names_to_collectors[TTFT[:-6]].collect())).samples
        if s.name == TTFT
    } == expected


@pytest.fixture
def many(make: Any, upstream: Any) -> Any:
    logger = make({0: ("1", "0")})
    stats = upstream.stats.IterationStats()
    stats.time_to_first_tokens_iter = [0.5]
    return logger, lambda e: logger.record(None, stats, engine_idx=e), {0}, {}, set()


# What it is built from


class Pool:
    """As much of a stage pool as the logger is built from."""

    def __init__(self, stage: int, config: Any, log_stats: bool = True) -> None:
        self.stage_id = stage
        self.stage_vllm_config = config
        self.clients = [SimpleNamespace(vllm_config=config)]
        self.output_processor = SimpleNamespace(log_stats=log_stats)


class Orchestrator:
    """As much of the engine's as the seam touches."""

    def __init__(self) -> None:
        self.calls: list[bool] = []
        self._stat_logger: Any = None

    def _init_metrics_state(
        self, stage_pools: Any, running_counter: Any, emitter: Any, log_stats: bool = False
    ) -> None:
        self.calls.append(log_stats)
        self._stat_logger = "the engine's own" if log_stats else None
        self._stage_replica_to_engine_idx = {(p.stage_id, 0): n for n, p in enumerate(stage_pools)}


@pytest.fixture(autouse=True)
def _wrapped(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    wrapped = stats.wrap_metrics_state(Orchestrator._init_metrics_state, state)
    monkeypatch.setattr(Orchestrator, "_init_metrics_state", wrapped)


@pytest.mark.parametrize("log_stats", [False, True])
def test_ours_is_built_with_and_without_the_switch(make: Any, config: Any, log_stats: bool) -> None:
    orchestrator = Orchestrator()
    orchestrator._init_metrics_state([Pool(0, config)], None, None, log_stats=log_stats)
    assert type(orchestrator._stat_logger).__name__ == "StageStatLogger"
    assert orchestrator.calls == [False], "the engine's own is not built"


def test_each_stage_shows_the_cache_configuration_of_its_own_engine(make: Any, config: Any) -> None:
    other = copy.deepcopy(config)
    config.cache_config.num_gpu_blocks, other.cache_config.num_gpu_blocks = 100, 7
    Orchestrator()._init_metrics_state([Pool(0, config), Pool(1, other)], None, None)
    info = [
        (sample.labels["stage"], sample.labels["replica"], sample.labels["num_gpu_blocks"])
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "vllm:cache_config_info" and sample.value == 1
    ]
    assert sorted(info) == [("0", "0", "100"), ("1", "0", "7")]


def test_stages_without_an_engine_of_vllm_make_no_series(make: Any, config: Any) -> None:
    orchestrator = Orchestrator()
    orchestrator._init_metrics_state([Pool(0, config), Pool(1, None)], None, None)
    assert set(shown(RUNNING)) == {("0", "0")}
    diffusion = Orchestrator()
    diffusion._init_metrics_state([Pool(0, None)], None, None)
    assert diffusion._stat_logger is None


@pytest.mark.parametrize("log_stats", [False, True])
def test_engines_own_is_used_where_ours_cannot_be_built(
    make: Any, config: Any, log: Any, log_stats: bool
) -> None:
    orchestrator = Orchestrator()
    deaf = Pool(0, config, log_stats=False)
    orchestrator._init_metrics_state([deaf], None, None, log_stats=log_stats)
    assert orchestrator._stat_logger == ("the engine's own" if log_stats else None)
    assert len(log.messages) == 1
