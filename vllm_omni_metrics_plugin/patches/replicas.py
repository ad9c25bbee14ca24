"""Who is in the pipeline: the replicas when the engine is ready, who joins and who leaves."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, ReplicaLeft, plugins
from vllm_omni_metrics_plugin.patches.engine_families import stats
from vllm_omni_metrics_plugin.patches.state import Stage, before_engine, stages, transfers

_joined = plugins.hooks.omni_replica_joined
_left = plugins.hooks.omni_replica_left


def wrap_engine_init(original: Callable[..., None]) -> Callable[..., None]:
    """``OmniBase.__init__``: returns once every stage replica is ready to serve."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        _prepare()
        original(self, *args, **kwargs)
        model_name(self, kwargs.get("served_model_name"))

    return __init__


def wrap_shutdown(original: Callable[..., None]) -> Callable[..., None]:
    """``OmniBase.shutdown``: the engine is stopped, its replicas leave with it."""

    @functools.wraps(original)
    def shutdown(self: Any, *args: Any, **kwargs: Any) -> None:
        leaving = []
        with internal_errors.suppressed("an engine that is stopped"):
            pools = [pool for pool in self.engine.stage_pools if pool in stages]
            leaving = [(pool, replica) for pool in pools for replica in members(pool)]
        original(self, *args, **kwargs)
        with internal_errors.suppressed("an engine that is stopped"):
            for pool, replica in leaving:
                _gone(pool, replica)

    return shutdown


def wrap_add_client(original: Callable[..., int]) -> Callable[..., int]:
    """``StagePool.add_client``: a replica joins at run time, or returns."""

    @functools.wraps(original)
    def add_client(self: Any, input_addr: str, *args: Any, **kwargs: Any) -> int:
        replica = original(self, input_addr, *args, **kwargs)
        with internal_errors.suppressed("a replica that joins"):
            stats.replica_joined(self, replica)
            if self in stages:
                _announce(self, replica)
        return replica

    return add_client


def wrap_remove_client(original: Callable[..., Any]) -> Callable[..., Any]:
    """``StagePool.remove_client``: a replica leaves; returns its client, None if it was gone."""

    @functools.wraps(original)
    def remove_client(self: Any, input_addr: str) -> Any:
        replica = _replica_at(self, input_addr)  # releases up to 0.24 forget it with the client
        client = original(self, input_addr)
        with internal_errors.suppressed("a replica that leaves"):
            if client is not None and replica is not None:
                _gone(self, replica)
        return client

    return remove_client


def wrap_evict_replica(original: Callable[..., None]) -> Callable[..., None]:
    """``StagePool.evict_replica``: a replica died."""

    @functools.wraps(original)
    def evict_replica(self: Any, replica_id: int) -> None:
        original(self, replica_id)
        with internal_errors.suppressed("a replica that died"):
            _gone(self, replica_id)

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


def _prepare() -> None:
    with internal_errors.suppressed("preparing for an engine"):
        for prepare in before_engine:
            prepare()


_model_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def model_name(omni: Any, served_as: object = None) -> str:
    """The name that vLLM's own families carry for this engine; never raises.

    ``served_as`` is what the engine was told to serve its model as, one name or several; stages
    without an engine of vLLM's do not know it.

    The first call for an engine announces its replicas. That is at the end of its construction, or
    at its first request when the plugin was loaded only while it was under construction, as in a
    script that makes its engine itself.
    """
    try:
        name = _model_names.get(omni)
        if name is not None:
            return name
        name = _model_names[omni] = transfers.model_name = _served_name(omni, served_as)
        _prepare()
    except Exception as error:
        internal_errors.report("finding the model's name", error)
        return "unknown"
    with internal_errors.suppressed("announcing the stages"):
        _announce_replicas(omni, name)
    return name


def _served_name(omni: Any, served_as: Any) -> str:
    for config in omni.engine.stage_vllm_configs:
        served = getattr(getattr(config, "model_config", None), "served_model_name", None)
        if served:
            return str(served)
    if served_as and not isinstance(served_as, str):
        served_as = served_as[0]
    return str(served_as or omni.model)


def _announce_replicas(omni: Any, name: str) -> None:
    for pool in omni.engine.stage_pools:
        about = omni.engine.get_stage_metadata(pool.stage_id)
        stages[pool] = Stage(
            model_name=name,
            stage_name=str(getattr(about, "model_stage", None) or pool.stage_id),
            stage_type=str(getattr(about, "stage_type", None) or "llm"),
        )
        for replica in members(pool):
            _announce(pool, replica)


def _announce(pool: Any, replica: int) -> None:
    if _joined.listeners:
        stage = stages[pool]
        _joined(
            ReplicaJoined(
                model_name=stage.model_name,
                stage=pool.stage_id,
                replica=replica,
                stage_name=stage.stage_name,
                stage_type=stage.stage_type,
            )
        )


def _gone(pool: Any, replica: int) -> None:
    stats.replica_left(pool, replica)
    if pool in stages and _left.listeners:
        left = ReplicaLeft(model_name=stages[pool].model_name, stage=pool.stage_id, replica=replica)
        _left(left)
