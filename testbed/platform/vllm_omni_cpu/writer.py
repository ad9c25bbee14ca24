"""The language model of the writer pipeline."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM


class Writer(Qwen2ForCausalLM):
    """Takes what vLLM-Omni's runner gives a model beyond vLLM's own arguments."""

    def forward(
        self,
        input_ids: Any,
        positions: Any,
        intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
        **_: Any,
    ) -> Any:
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)
