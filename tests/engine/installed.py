"""The engine that these tests run on: the installed one, or whose sources come first in the path.

What the tests need of it and releases have in different places or shapes is made here.
"""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.seams import releases
from vllm_omni_metrics_plugin.patches.table import SEAMS as NEWEST
from vllm_omni_metrics_plugin.patches.table import seams_of

RELEASE = process.installed_versions().get("vllm-omni", "")
SEAMS = seams_of(RELEASE) if RELEASE else NEWEST


def before(release: str) -> bool:
    """Whether the engine is older than ``release``."""
    return releases.number(RELEASE) < releases.number(release)


def output_processor(kind: str) -> Any:
    """A real one, for a stage whose engine sends ``kind``."""
    if before("0.26.0"):
        from vllm_omni.engine.output_processor import MultimodalOutputProcessor
    else:
        from vllm_omni.outputs.output_processor import MultimodalOutputProcessor

    return MultimodalOutputProcessor(tokenizer=None, log_stats=False, engine_core_output_type=kind)


def core_request(request_id: str, sampling_params: Any) -> Any:
    """What an engine core is given of a request with three prompt tokens."""
    from vllm.v1.engine import EngineCoreRequest

    return EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=sampling_params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        external_req_id=request_id,
    )


def core_output(payload: dict[str, Any], **fields: Any) -> Any:
    """What an engine core sends of a request."""
    from vllm_omni.engine import OmniEngineCoreOutput

    field = "pooling_output" if before("0.24.0") else "multimodal_output"
    return OmniEngineCoreOutput(**fields, **{field: payload})


def stage_output(processed: Any, stage: int, output_type: str) -> Any:
    """What the orchestrator passes on of what a stage's processor made."""
    from vllm_omni.outputs import OmniRequestOutput

    if before("0.28.0"):
        return processed
    return OmniRequestOutput.from_stage_output(
        processed, stage_id=stage, final_output_type=output_type
    )


def client_output(
    processed: Any, request_id: str, stage: int, replica: int, output_type: str
) -> Any:
    """What the engine's client makes of it."""
    from vllm_omni.outputs import OmniRequestOutput

    fields: dict[str, Any] = {
        "request_id": request_id,
        "stage_id": stage,
        "final_output_type": output_type,
    }
    if not before("0.28.0"):
        return OmniRequestOutput.from_stage_output(
            processed, finished=processed.finished, replica_id=replica, **fields
        )
    if not before("0.24.0"):
        fields["finished"] = processed.finished
    output = OmniRequestOutput(request_output=processed, **fields)
    output.replica_id = replica  # which the client's patch does where the engine does not
    return output


def stage_info(final_output_type: str | None, stage: str) -> Any:
    if before("0.24.0"):
        from vllm_omni.engine.async_omni_engine import StageRuntimeInfo
    else:
        from vllm_omni.engine.stage_runtime import StageRuntimeInfo

    return StageRuntimeInfo(final_output_type is not None, final_output_type, "llm", stage)


def step_request_state() -> Any:
    """The state of a request that a diffusion engine runs step by step."""
    if before("0.26.0"):
        from vllm_omni.diffusion.worker.utils import DiffusionRequestState as StepRequestState
    else:
        from vllm_omni.diffusion.worker.utils import StepRequestState

    return StepRequestState(request_id="a", sampling=None, prompt=None)


def primary() -> dict[str, bool]:
    """What a diffusion runner that attaches metrics to an output has to be told in 0.24 alone."""
    return {"is_primary": True} if before("0.26.0") else {}
