"""How long stages hold KV caches for the connector: their schedulers say it in an output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import KvWaited
from vllm_omni_metrics_plugin.patches.state import EngineState


def wrap_raw_outputs(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``Orchestrator._handle_kv_ready_raw_outputs``: all that a stage engine put out in a step."""

    waited = state.hooks.omni_kv_waited

    @functools.wraps(original)
    async def _handle_kv_ready_raw_outputs(
        self: Any, stage_id: int, raw_outputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        try:  # once for each step of an engine: no context manager
            if waited.listeners:
                for output in raw_outputs.outputs:
                    if output.kv_transfer_params:
                        _tell(state, stage_id, output)
        except Exception as error:
            internal_errors.report("a KV cache that waited", error)
        return await original(self, stage_id, raw_outputs, *args, **kwargs)

    return _handle_kv_ready_raw_outputs


def _tell(state: EngineState, stage: int, output: Any) -> None:
    seconds = output.kv_transfer_params.get("kv_wait_s")
    binding = state.requests.bindings.of(output.request_id)
    if seconds is None or binding is None:  # nothing was measured, or it is nobody's request
        return
    state.hooks.omni_kv_waited(
        KvWaited(
            request_id=output.request_id,
            model_name=binding.model_name,
            stage=stage,
            replica=binding.replica(stage),
            connector=str(output.kv_transfer_params.get("connector_type") or "unknown"),
            wait_seconds=float(seconds),
            parent_request_id=binding.parent_id,
        )
    )
