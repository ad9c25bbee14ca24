"""vLLM's CPU platform, completed with what vLLM-Omni asks of one."""

from __future__ import annotations

import psutil
import torch
from vllm.platforms.cpu import CpuPlatform
from vllm_omni.platforms.interface import OmniPlatform, OmniPlatformEnum

#: As many stage replicas as the launcher may place on "devices" of their own.
_VIRTUAL_DEVICES = 8


class CpuOmniPlatform(OmniPlatform, CpuPlatform):
    """Stages of LLM engines on CPU."""

    _omni_enum = OmniPlatformEnum.OOT
    # Only the launcher reads this variable: stages with different device ids start in parallel.
    # vLLM's own CPU variable would take the id for a memory node.
    device_control_env_var = "VLLM_OMNI_CPU_VISIBLE_DEVICES"

    @classmethod
    def get_omni_ar_worker_cls(cls) -> str:
        return "vllm_omni_cpu.workers.CpuAutoregressiveWorker"

    @classmethod
    def get_omni_generation_worker_cls(cls) -> str:
        return "vllm_omni_cpu.workers.CpuGenerationWorker"

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
