"""vLLM's engine statistics in the server: our stat logger in the place of the engine's own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.engine_families.input_cache import InputCaches
from vllm_omni_metrics_plugin.patches.seams.arguments import replacing
from vllm_omni_metrics_plugin.patches.state import EngineState

if TYPE_CHECKING:
    from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

logger = logging.getLogger("vllm.omni_metrics")


def wrap_output_processor_init(original: Callable[..., None], _: object) -> Callable[..., None]:
    """``MultimodalOutputProcessor.__init__``: collects the times of each request's tokens.

    Without ``--log-stats`` it would not, and recording would fail for want of them.
    """

    with_log_stats = replacing(original, "log_stats")

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        args, kwargs = with_log_stats(True, self, *args, **kwargs)
        original(*args, **kwargs)

    return __init__


def wrap_metrics_state(original: Callable[..., None], state: EngineState) -> Callable[..., None]:
    """``OrchestratorBase._init_metrics_state``: where the engine builds its wrapped logger.

    Ours is built instead, with and without ``--log-stats``; the engine's own if that fails.
    """

    with_log_stats = replacing(original, "log_stats")

    @functools.wraps(original)
    def _init_metrics_state(self: Any, stage_pools: Any, *args: Any, **kwargs: Any) -> None:
        without, named = with_log_stats(False, self, stage_pools, *args, **kwargs)
        original(*without, **named)
        try:
            self._stat_logger = _build(self, stage_pools, state)
        except Exception as error:
            internal_errors.report("building the stat logger; the engine's own is used", error)
            original(self, stage_pools, *args, **kwargs)

    return _init_metrics_state


def replica_joined(state: EngineState, pool: Any, replica: int) -> None:
    """Give a replica its series, or show those again that it had."""
    if pool not in state.stat_loggers:
        return
    stat_logger, numbers = state.stat_loggers[pool]
    member = (pool.stage_id, replica)
    number = numbers.get(member, len(numbers))
    stat_logger.register_replica(number, str(pool.stage_id), str(replica))
    numbers[member] = number
    _show_cache_config(stat_logger, number, pool, replica)


def replica_left(state: EngineState, pool: Any, replica: int) -> None:
    """Stop exposing a replica's series."""
    if pool in state.stat_loggers:
        state.stat_loggers[pool][0].withdraw_replica(str(pool.stage_id), str(replica))


def replica_sleeps(state: EngineState, pool: Any, replica: int, level: int) -> None:
    """A replica sleeps at vLLM's ``level``, 1 or 2; 0: it is awake."""
    if pool in state.stat_loggers:
        stat_logger, numbers = state.stat_loggers[pool]
        stat_logger.show_sleep_state(numbers[pool.stage_id, replica], level)


def engine_is_ready(state: EngineState, engine: Any) -> None:
    """The engine has its input processor, with the cache of stage 0's inputs."""
    for pool in engine.stage_pools:
        if pool.stage_id == 0 and pool in state.stat_loggers:
            stat_logger = state.stat_loggers[pool][0]
            stat_logger.input_caches.belongs_to_stage_0(getattr(engine, "input_processor", None))


def record_iteration(state: EngineState, pool: Any, replica: int, iteration_stats: Any) -> None:
    """Record what a release up to 0.24 does not hand to its stat logger."""
    if pool in state.stat_loggers:
        stat_logger, numbers = state.stat_loggers[pool]
        stat_logger.record_iteration(iteration_stats, numbers[pool.stage_id, replica])


def record_scheduler(state: EngineState, pool: Any, replica: int, scheduler_stats: Any) -> None:
    """The same for the state of a scheduler."""
    if pool in state.stat_loggers:
        stat_logger, numbers = state.stat_loggers[pool]
        stat_logger.record(scheduler_stats, None, engine_idx=numbers[pool.stage_id, replica])


def _build(orchestrator: Any, stage_pools: Any, state: EngineState) -> StageStatLogger | None:
    from vllm_omni_metrics_plugin.patches.engine_families.stat_logger import StageStatLogger

    pools = [pool for pool in stage_pools if pool.stage_vllm_config is not None]
    if not pools:
        return None  # diffusion alone: no engine of vLLM's, no families of vLLM's
    if not all(pool.output_processor.log_stats for pool in pools):
        raise RuntimeError("an output processor collects no statistics")
    numbers: dict[tuple[int, int], int] = orchestrator._stage_replica_to_engine_idx
    members = {
        number: (str(stage), str(replica))
        for (stage, replica), number in numbers.items()
        if any(pool.stage_id == stage for pool in pools)
    }
    later_stages = getattr(orchestrator, "_stage_input_processors", {})
    stat_logger = StageStatLogger(
        pools[0].stage_vllm_config, members, state.hooks, InputCaches(later_stages)
    )
    for pool in pools:
        state.stat_loggers[pool] = (stat_logger, numbers)
        for (stage, replica), number in numbers.items():
            if stage == pool.stage_id:
                _show_cache_config(stat_logger, number, pool, replica)
    return stat_logger


def _show_cache_config(stat_logger: StageStatLogger, number: int, pool: Any, replica: int) -> None:
    """The replica's own, in which its engine has written how many blocks it has."""
    with internal_errors.suppressed("showing a cache configuration"):
        own = getattr(pool.clients[replica], "vllm_config", None) or pool.stage_vllm_config
        stat_logger.show_cache_config(number, own.cache_config)
