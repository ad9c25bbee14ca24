"""The engine's construction: which stages and replicas there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import faults
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, plugins
from vllm_omni_metrics_plugin.patches.client import model_name

_joined = plugins.hooks.omni_replica_joined


def wrap_engine_init(original: Callable[..., None]) -> Callable[..., None]:
    """``OmniBase.__init__``: returns once every stage replica is ready to serve."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **keywords: Any) -> None:
        original(self, *args, **keywords)
        if _joined.listeners:
            try:
                _announce_replicas(self)
            except Exception:
                faults.contain("announcing the stages")

    return __init__


def _announce_replicas(omni: Any) -> None:
    for pool in omni.engine.stage_pools:
        stage = omni.engine.get_stage_metadata(pool.stage_id)
        for replica in pool.available_replica_ids():
            _joined(
                ReplicaJoined(
                    model_name=model_name(omni),
                    stage=pool.stage_id,
                    replica=replica,
                    stage_name=str(getattr(stage, "model_stage", None) or pool.stage_id),
                    stage_type=str(getattr(stage, "stage_type", None) or "llm"),
                )
            )
