"""A pipeline that the engine does not have: a language model writes the prompt of an image.

Stage 0 hands a payload to stage 1, past the orchestrator; the image model has no use for it.
"""

from __future__ import annotations

from typing import Any

_ARCHITECTURE = "WriterForCausalLM"
NAME = "writer_image"


def register() -> None:
    """Entry point of the engine's general plugins; does nothing the second time.

    Nor on engines before 0.30, which know no payload of this form.
    """
    try:
        from vllm_omni.config.pipeline_registry import OMNI_PIPELINES, register_pipeline
        from vllm_omni.config.stage_config import (
            PipelineConfig,
            StageExecutionType,
            StagePipelineConfig,
        )
    except ImportError:
        return
    if NAME in OMNI_PIPELINES or not hasattr(StagePipelineConfig, "stage_input_payload_keys"):
        return
    from vllm import ModelRegistry
    from vllm_omni.model_executor.models.registry import OmniModelRegistry

    for registry in (OmniModelRegistry, ModelRegistry):
        registry.register_model(_ARCHITECTURE, "vllm_omni_cpu.writer:Writer")
    writer = StagePipelineConfig(
        stage_id=0,
        model_stage="writer",
        execution_type=StageExecutionType.LLM_AR,
        owns_tokenizer=True,
        final_output=False,
        model_arch=_ARCHITECTURE,
        prompt_transform_func=f"{__name__}.text_alone",
        custom_process_next_stage_input_func=f"{__name__}.payload",
        engine_output_type="latent",
        model_subdir="llm",
        tokenizer_subdir="llm",
        sampling_constraints={"detokenize": True},
    )
    image = StagePipelineConfig(
        stage_id=1,
        model_stage="dit",
        execution_type=StageExecutionType.DIFFUSION,
        input_sources=(0,),
        final_output=True,
        final_output_type="image",
        model_arch="QwenImagePipeline",
        custom_process_input_func=f"{__name__}.prompt_of_image",
        omni_kv_config={"need_recv_cache": False},
        stage_input_payload_keys=("encoder_output",),
        inline_diffusion=True,
    )
    register_pipeline(
        PipelineConfig(model_type=NAME, model_arch=_ARCHITECTURE, stages=(writer, image))
    )


def prompt_of_image(source_outputs: Any, prompt: Any = None, *_: Any, **__: Any) -> Any:
    """What the writer wrote, after what it was asked."""
    if not source_outputs:
        return None
    asked = prompt[0] if isinstance(prompt, list) else prompt
    asked = asked if isinstance(asked, dict) else {}
    text = source_outputs[0].outputs[0].text
    negative = asked.get("negative_prompt")
    return {"prompt": f"{asked.get('prompt', '')} {text}", "negative_prompt": negative}


def text_alone(prompt: Any, _: Any) -> Any:
    """The writer's view of a request: it has no image processor that a size could be told."""
    if isinstance(prompt, dict):
        wanted = ("prompt", "prompt_token_ids", "modalities")
        return {key: value for key, value in prompt.items() if key in wanted}
    return prompt


def payload(**_: Any) -> Any:
    """What stage 0 puts for stage 1."""
    import torch

    return {"encoder_output": {"hidden": torch.ones(8, 64)}}
