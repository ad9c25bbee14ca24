"""How much a request asks of each stage, by the sampling parameters that the engine gives it."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.hooks import Demand


def declared(req_state: Any) -> tuple[Demand, ...]:
    """Of the stages up to the request's last one; ``req_state`` is the orchestrator's.

    What the client left open the engine has filled in by now, where its configuration says it; what
    a pipeline chooses itself, as its usual size, it has not.
    """
    last = getattr(req_state, "final_stage_id", -1)
    params = req_state.sampling_params_list
    return tuple(_demand(one) for one in (params[: last + 1] if last >= 0 else params))


def _demand(params: Any) -> Demand:
    if not hasattr(params, "num_inference_steps"):
        return Demand(tokens=_product(getattr(params, "max_tokens", None)))
    sigmas = getattr(params, "sigmas", None)  # the noise levels themselves say how many there are
    steps = len(sigmas) if isinstance(sigmas, (list, tuple)) else params.num_inference_steps
    pixels = _product(
        *(getattr(params, name, None) for name in ("height", "width")),
        *(getattr(params, name, 1) for name in ("num_frames", "num_outputs_per_prompt")),
    )
    return Demand(steps=_product(steps), pixels=pixels)


def _product(*factors: Any) -> int | None:
    """None unless all of them are whole numbers above 0."""
    product = 1
    for one in factors:
        if isinstance(one, bool) or not isinstance(one, int) or one <= 0:
            return None
        product *= one
    return product
