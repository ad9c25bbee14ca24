"""vLLM-Omni's diffusion worker on CPU."""

from __future__ import annotations

from typing import Any

from vllm_omni.diffusion.worker.diffusion_worker import DiffusionWorker

from vllm_omni_cpu import bagel


class CpuDiffusionWorker(DiffusionWorker):
    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        is_bagel = "Bagel" in str(self.od_config.model_class_name)
        if is_bagel:
            bagel.shrink_autoencoder()
        result = super().load_model(*args, **kwargs)
        if is_bagel:
            bagel.cast_inputs(self.model_runner.pipeline)
        return result
