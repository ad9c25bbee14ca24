"""The stage pools, in the orchestrator's thread: who was given a request, and who finished it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import Demand
from vllm_omni_metrics_plugin.patches.declared import declared
from vllm_omni_metrics_plugin.patches.diffusion.outputs import work_of
from vllm_omni_metrics_plugin.patches.seams.arguments import reading
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests import Delivery

_DELIVERIES: dict[str, Delivery] = {
    "DELTA": "delta",
    "CUMULATIVE": "cumulative",
    "FINAL_ONLY": "final",
}


def wrap_submit(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool.submit_initial``: a stage's first part in a request; returns the replica."""

    read = reading(original, "affinity_request_id")

    @functools.wraps(original)
    async def submit_initial(
        self: Any, request_id: str, req_state: Any, *args: Any, **kwargs: Any
    ) -> Any:
        demands: tuple[Demand, ...] = ()
        with internal_errors.suppressed("a stage submit"):
            request = state.requests.by_id.get(request_id)
            if request is not None:
                if not request.dispatched:
                    demands = declared(req_state)
                stage = state.stages.get(self)
                request.submitting(
                    self.stage_id,
                    _delivery(req_state, self.stage_id),
                    makes_audio=stage is not None and "audio" in stage.makes,
                )
        replica = await original(self, request_id, req_state, *args, **kwargs)
        with internal_errors.suppressed("a stage submit"):
            [parent] = read(self, request_id, req_state, *args, **kwargs)
            state.requests.submitted(request_id, self.stage_id, replica, parent, demands)
        return replica

    return submit_initial


def wrap_route_output(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``Orchestrator._route_output``: each output of a stage, before it goes anywhere."""

    @functools.wraps(original)
    async def _route_output(
        self: Any, stage_id: int, replica_id: int, output: Any, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            state.requests.stage_output(output.request_id, stage_id)
        except Exception as error:  # for each token: no context manager
            internal_errors.report("an output of a stage", error)
        return await original(self, stage_id, replica_id, output, *args, **kwargs)

    return _route_output


def wrap_stage_metrics(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool.build_stage_metrics``: called once for each output that ends a stage's part.

    Of a streamed input it is called for each piece as well.
    """

    read = reading(original, "replica_id")

    @functools.wraps(original)
    def build_stage_metrics(self: Any, request_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        metrics = original(self, request_outputs, *args, **kwargs)
        with internal_errors.suppressed("a stage's end"):
            [replica] = read(self, request_outputs, *args, **kwargs)
            for output in request_outputs:
                if not getattr(output, "finished", False):
                    state.requests.segment_finished(
                        output.request_id, self.stage_id, _finish_reason(output)
                    )
                else:
                    state.requests.stage_finished(
                        output.request_id,
                        self.stage_id,
                        replica,
                        _finish_reason(output),
                        getattr(metrics, "num_tokens_in", None),
                        getattr(metrics, "num_tokens_out", None),
                        work_of(output) if self.stage_type == "diffusion" else None,
                    )
        return metrics

    return build_stage_metrics


def _delivery(req_state: Any, stage: int) -> Delivery | None:
    kind = getattr(req_state.sampling_params_list[stage], "output_kind", None)
    return _DELIVERIES.get(getattr(kind, "name", ""))


def _finish_reason(output: Any) -> str | None:
    for completion in getattr(output, "outputs", None) or ():
        reason = getattr(completion, "finish_reason", None)
        if reason is not None:
            return str(reason)
    return None
