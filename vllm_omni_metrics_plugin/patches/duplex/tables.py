"""The sessions of each engine that has some, by what of the engine owns them."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.sessions import Sessions


def sessions_of(manager: Any, state: EngineState) -> Sessions:
    """Those of a ``DuplexSessionManager``, under the name that the families of its engine carry."""
    sessions = state.sessions.get(manager)
    if sessions is None:
        sessions = state.sessions[manager] = Sessions(state.requests, _model_name(manager, state))
    return sessions


def speaking_stage(manager: Any, state: EngineState) -> int:
    """The stage whose audio leaves for the client; the last one where none is known to make any."""
    pools = _pools(manager)
    for pool in reversed(pools):
        stage = state.stages.get(pool)
        if stage is not None and "audio" in stage.makes:
            return int(pool.stage_id)
    return len(pools) - 1


def only_replica(manager: Any, stage: int) -> int | None:
    """Of a stage that has one; any other may have made what leaves for the client."""
    for pool in _pools(manager):
        if pool.stage_id == stage:
            replicas = list(pool.live_replica_ids())
            return int(replicas[0]) if len(replicas) == 1 else None
    return None


def _model_name(manager: Any, state: EngineState) -> str:
    for pool in _pools(manager):
        stage = state.stages.get(pool)
        if stage is not None:
            return stage.model_name
    served = getattr(manager.model_config, "served_model_name", None)
    return str(served or "unknown")


def _pools(manager: Any) -> list[Any]:
    return list(getattr(manager.stage_port, "stage_pools", ()))
