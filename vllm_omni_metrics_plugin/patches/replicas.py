"""Who is in the pipeline: the replicas when the engine is ready, who joins and who leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.hooks.events import Departure
from vllm_omni_metrics_plugin.patches import topology
from vllm_omni_metrics_plugin.patches.engine_families import stats
from vllm_omni_metrics_plugin.patches.state import EngineState, Stage


def wrap_engine_init(original: Callable[..., None], state: EngineState) -> Callable[..., None]:
    """``OmniBase.__init__``: returns once every stage replica is ready to serve."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        _call(state.before_engine)
        original(self, *args, **kwargs)
        _call(state.after_engine)
        introduce(self, state, kwargs.get("served_model_name"))

    return __init__


def wrap_shutdown(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``OmniBase.shutdown``: the engine is stopped, its replicas leave with it."""

    @functools.wraps(original)
    def shutdown(self: Any, *args: Any, **kwargs: Any) -> Any:
        leaving = []
        with internal_errors.suppressed("an engine that is stopped"):
            pools = [pool for pool in self.engine.stage_pools if pool in state.stages]
            leaving = [(pool, replica) for pool in pools for replica in members(pool)]
        result = original(self, *args, **kwargs)
        with internal_errors.suppressed("an engine that is stopped"):
            for pool, replica in leaving:
                _gone(state, pool, replica, "stopped")
        return result

    return shutdown


def wrap_add_client(original: Callable[..., int], state: EngineState) -> Callable[..., int]:
    """``StagePool.add_client``: a replica joins at run time, or returns."""

    @functools.wraps(original)
    def add_client(self: Any, input_addr: str, *args: Any, **kwargs: Any) -> int:
        replica = original(self, input_addr, *args, **kwargs)
        with internal_errors.suppressed("a replica that joins"):
            stats.replica_joined(state, self, replica)
            if self in state.stages:
                _announce(state, self, replica)
        return replica

    return add_client


def wrap_remove_client(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool.remove_client``: a replica leaves; returns its client, None if it was gone."""

    @functools.wraps(original)
    def remove_client(self: Any, input_addr: str, *args: Any, **kwargs: Any) -> Any:
        replica = _replica_at(self, input_addr)  # releases up to 0.24 forget it with the client
        client = original(self, input_addr, *args, **kwargs)
        with internal_errors.suppressed("a replica that leaves"):
            if client is not None and replica is not None:
                _gone(state, self, replica, "removed")
        return client

    return remove_client


def wrap_evict_replica(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool.evict_replica``: a replica died; it may have left before."""

    @functools.wraps(original)
    def evict_replica(self: Any, replica_id: int, *args: Any, **kwargs: Any) -> Any:
        is_here = True
        with internal_errors.suppressed("a replica that died"):
            is_here = replica_id in self.live_replica_ids()
        result = original(self, replica_id, *args, **kwargs)
        with internal_errors.suppressed("a replica that died"):
            if is_here:
                _gone(state, self, replica_id, "died")
        return result

    return evict_replica


def members(pool: Any) -> list[int]:
    """The replicas of a stage pool that can serve; up to 0.24 pools know only which they have."""
    known = getattr(pool, "available_replica_ids", None) or pool.live_replica_ids
    return list(known())


def _replica_at(pool: Any, input_addr: str) -> int | None:
    try:
        replica: int | None = pool.get_replica_id_by_addr(input_addr)
    except Exception as error:
        internal_errors.report("a replica that leaves", error)
        return None
    return replica


def introduce(omni: Any, state: EngineState, served_as: Any = None) -> str:
    """Announce an engine's replicas, once; returns the name that its families carry; never raises.

    ``served_as`` is what the engine was told to serve its model as, one name or several; stages
    without an engine of vLLM's do not know it.

    An engine is introduced at the end of its construction, or at its first request when the plugin
    was loaded only while it was under construction, as in a script that makes its engine itself.
    """
    known = state.model_names.get(omni)
    if known is not None:
        return known
    try:
        name = model_name(omni, served_as)
        state.name_engine(omni, name)
    except Exception as error:
        internal_errors.report("finding the model's name", error)
        return "unknown"
    _call(state.after_engine)
    with internal_errors.suppressed("announcing the stages"):
        stats.engine_is_ready(state, omni.engine)
        _announce_replicas(state, omni, name)
    return name


def model_name(omni: Any, served_as: Any = None) -> str:
    """The ``model_name`` that vLLM's own families carry for this engine."""
    for config in omni.engine.stage_vllm_configs:
        served = getattr(getattr(config, "model_config", None), "served_model_name", None)
        if served:
            return str(served)
    if served_as and not isinstance(served_as, str):
        served_as = served_as[0]
    return str(served_as or omni.model)


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    with internal_errors.suppressed("preparing for an engine"):
        for callback in callbacks:
            callback()


def _announce_replicas(state: EngineState, omni: Any, name: str) -> None:
    for pool in omni.engine.stage_pools:
        about = omni.engine.get_stage_metadata(pool.stage_id)
        state.stages[pool] = Stage(
            model_name=name,
            stage_name=str(getattr(about, "model_stage", None) or pool.stage_id),
            stage_type=str(getattr(about, "stage_type", None) or "llm"),
            makes=topology.makes(about),
            feeds=topology.feeds(omni.engine, pool),
        )
        for replica in members(pool):
            _announce(state, pool, replica)


def _announce(state: EngineState, pool: Any, replica: int) -> None:
    if state.hooks.omni_replica_joined.listeners:
        stage = state.stages[pool]
        state.hooks.omni_replica_joined(
            ReplicaJoined(
                model_name=stage.model_name,
                stage=pool.stage_id,
                replica=replica,
                stage_name=stage.stage_name,
                stage_type=stage.stage_type,
                makes=stage.makes,
                feeds=stage.feeds,
            )
        )


def _gone(state: EngineState, pool: Any, replica: int, reason: Departure) -> None:
    stats.replica_left(state, pool, replica)
    stage = state.stages.get(pool)
    if stage is None:
        return
    if state.hooks.omni_replica_left.listeners:
        state.hooks.omni_replica_left(
            ReplicaLeft(
                model_name=stage.model_name, stage=pool.stage_id, replica=replica, reason=reason
            )
        )
    state.requests.executions.replica_left(stage.model_name, pool.stage_id, replica)
