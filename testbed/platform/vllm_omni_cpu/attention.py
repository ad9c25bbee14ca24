"""Attention of diffusion models on CPU.

vLLM-Omni's own backends choose their implementation by the kind of accelerator and know no CPU.
"""

from __future__ import annotations

from typing import Any

from vllm_omni.diffusion.attention.backends.sdpa import SDPABackend, SDPAImpl


class CpuAttention(SDPAImpl):
    """PyTorch's scaled dot product attention."""

    def forward(self, query: Any, key: Any, value: Any, attn_metadata: Any = None) -> Any:
        return self._forward_impl(query, key, value, attn_metadata, mask_mode="broadcast_k")


class CpuAttentionBackend(SDPABackend):
    @staticmethod
    def get_impl_cls() -> type[SDPAImpl]:
        return CpuAttention


# Up to 0.28 float32 goes past the platform's backend, to the engine's own implementation.
SDPAImpl.forward = CpuAttention.forward
