"""vLLM's CPU platform, completed with what vLLM-Omni asks of one."""

from __future__ import annotations

import psutil
import torch
from vllm.platforms.cpu import CpuPlatform
from vllm_omni.platforms.interface import OmniPlatform, OmniPlatformEnum

from vllm_omni_cpu.delays import delay_front_end

#: As many stage replicas as the launcher may place on "devices" of their own.
_VIRTUAL_DEVICES = 8


class CpuOmniPlatform(OmniPlatform, CpuPlatform):
    """Stages of LLM engines and diffusion engines on CPU."""

    _omni_enum = OmniPlatformEnum.OOT
    # Only the launcher reads this variable: stages with different device ids start in parallel.
    # vLLM's own CPU variable would take the id for a memory node.
    device_control_env_var = "VLLM_OMNI_CPU_VISIBLE_DEVICES"

    @classmethod
    def get_omni_ar_worker_cls(cls) -> str:
        delay_front_end()
        return "vllm_omni_cpu.workers.CpuAutoregressiveWorker"

    @classmethod
    def get_omni_generation_worker_cls(cls) -> str:
        return "vllm_omni_cpu.workers.CpuGenerationWorker"

    @classmethod
    def get_diffusion_worker_cls(cls) -> str:
        return "vllm_omni_cpu.diffusion.CpuDiffusionWorker"

    @classmethod
    def get_diffusion_attn_backend_cls(
        cls, selected_backend: str | None, head_size: int, allow_trtllm_default: bool = False
    ) -> str:
        return "vllm_omni_cpu.attention.CpuAttentionBackend"

    @classmethod
    def supports_diffusion_dense_flash_attention(cls) -> bool:
        return False

    @classmethod
    def supports_cpu_offload(cls) -> bool:
        return False

    @classmethod
    def get_default_stage_config_path(cls) -> str:
        return "vllm_omni/model_executor/stage_configs"

    @classmethod
    def supports_torch_inductor(cls) -> bool:
        return False

    @classmethod
    def supports_talker_mtp_graph_capture(cls) -> bool:
        return False

    @classmethod
    def get_torch_device(cls, local_rank: int | None = None) -> torch.device:
        return torch.device("cpu")

    @classmethod
    def get_device_count(cls) -> int:
        return _VIRTUAL_DEVICES

    @classmethod
    def get_device_version(cls) -> str | None:
        return None

    @classmethod
    def synchronize(cls) -> None:
        return None

    @classmethod
    def get_free_memory(cls, device: torch.device | None = None) -> int:
        return int(psutil.virtual_memory().available)

    @classmethod
    def get_device_memory(cls, device: torch.device | None = None) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)

    @classmethod
    def get_current_memory_usage(cls, device: torch.device | None = None) -> float:
        return float(psutil.Process().memory_info().rss)

    # What follows asks about an accelerator's own memory; there is only the process's.

    @classmethod
    def is_available(cls) -> bool:
        return True

    @classmethod
    def is_initialized(cls) -> bool:
        return True

    @classmethod
    def current_device(cls) -> int:
        return 0

    @classmethod
    def empty_cache(cls) -> None:
        return None

    @classmethod
    def reset_peak_memory_stats(cls, device: torch.device | None = None) -> None:
        return None

    @classmethod
    def memory_reserved(cls, device: torch.device | None = None) -> int:
        return 0

    @classmethod
    def max_memory_allocated(cls, device: torch.device | None = None) -> int:
        return int(psutil.Process().memory_info().rss)

    @classmethod
    def max_memory_reserved(cls, device: torch.device | None = None) -> int:
        return int(psutil.Process().memory_info().rss)
