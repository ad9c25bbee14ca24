"""What an output of the engine holds, as it leaves for the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.asked import Asked
from vllm_omni_metrics_plugin.patches.diffusion import outputs as visual
from vllm_omni_metrics_plugin.patches.diffusion.steps import take_steps
from vllm_omni_metrics_plugin.requests import OpenRequest

_NOTHING = Asked()


def observe(request: OpenRequest, output: Any, asked: Asked = _NOTHING) -> None:
    """Take note of an output (``OmniRequestOutput``) that leaves the engine; never raises."""
    try:
        request.delivered = True
        completions = getattr(output, "outputs", None)
        if not isinstance(completions, (list, tuple)):
            completions = ()  # what a pooling stage makes is one object, and no media
        finished = is_finished(output)
        if finished:
            for completion in completions:
                reason = getattr(completion, "finish_reason", None)
                if reason is not None:
                    request.finish_reasons.add(str(reason))
        if getattr(output, "stage_durations", None):
            take_steps(output)  # of a diffusion stage, whatever it makes; clients never see them
        output_type = getattr(output, "final_output_type", None)
        if output_type in visual.VISUAL:
            visual.observe(request, output, asked)
            return
        payloads = _audio_payloads(output, completions)
        if payloads or output_type == "audio":
            request.audio_output(payloads, output.stage_id, output.replica_id, finished=finished)
    except Exception as error:  # the hottest path of ours: no context manager
        internal_errors.report("reading an output", error)


def is_finished(output: Any) -> bool:
    """Whether a stage has nothing to add to an output.

    Up to 0.22 what the client gets always says so; what the stage said is inside of it.
    """
    inner = getattr(output, "request_output", None)
    return bool(getattr(output if inner is None else inner, "finished", False))


def _audio_payloads(output: Any, completions: Any) -> list[Mapping[str, Any]]:
    payloads = [getattr(completion, "multimodal_output", None) for completion in completions]
    if not any(payloads) and not _is_pooling(output):
        # Diffusion stages carry it on the output itself. Where a completion has one, the
        # output's property shows the same object again.
        payloads = [getattr(output, "multimodal_output", None)]
    return [
        payload
        for payload in payloads
        if isinstance(payload, Mapping) and ("audio" in payload or "model_outputs" in payload)
    ]


def _is_pooling(output: Any) -> bool:
    """Its output's property for media raises."""
    return not isinstance(getattr(output, "outputs", ()), (list, tuple, type(None)))
