"""vLLM-Omni's model runners on vLLM's CPU worker."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker import cpu_worker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner, _torch_cuda_wrapper
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm_omni.worker.gpu_ar_model_runner import GPUARModelRunner
from vllm_omni.worker.gpu_generation_model_runner import GPUGenerationModelRunner
from vllm_omni.worker.mixins import OmniWorkerMixin

from vllm_omni_cpu import bagel
from vllm_omni_cpu.delays import delay_transfers
from vllm_omni_cpu.pauses import Pauses
from vllm_omni_cpu.voice import Voice


class _OnCpu:
    """What both runners need on CPU.

    Stands first in the order of inheritance; ``CPUModelRunner`` comes between the omni runner and
    the GPU runner that both derive from.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with _torch_cuda_wrapper():
            super().__init__(*args, **kwargs)
        self._postprocess_tensors()  # the buffers that the omni runner added

    def _init_talker_mtp(self) -> None:
        # None on CPU, where nothing is captured; the omni runner takes the maximum with it.
        if self.compilation_config.max_cudagraph_capture_size is None:
            self.compilation_config.max_cudagraph_capture_size = 0
        super()._init_talker_mtp()
        self._postprocess_tensors()

    def initialize_kv_cache(self, *args: Any, **kwargs: Any) -> Any:
        result = super().initialize_kv_cache(*args, **kwargs)
        self._postprocess_tensors()
        return result


class CpuAutoregressiveRunner(_OnCpu, GPUARModelRunner, CPUModelRunner):
    """Thinkers and talkers."""


class CpuGenerationRunner(_OnCpu, GPUGenerationModelRunner, CPUModelRunner):
    """Vocoders."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pauses = Pauses()
        self._voice = Voice()

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        if scheduler_output.total_num_scheduled_tokens:
            self._pauses.pause()
        return super().execute_model(scheduler_output, *args, **kwargs)

    def extract_multimodal_outputs(self, *args: Any, **kwargs: Any) -> Any:
        hidden, outputs = super().extract_multimodal_outputs(*args, **kwargs)
        self._voice.speak(outputs, self.input_batch.req_ids, self.requests)
        return hidden, outputs


class _OmniCpuWorker(OmniWorkerMixin, CPUWorker):
    #: The engine looks at this name to see whether the worker can talk to connectors.
    model_runner_cls: type[CPUModelRunner]

    def init_device(self) -> None:
        delay_transfers()
        self.use_v2_model_runner = False  # there is none for CPU
        # The CPU worker names its runner class in a module global.
        usual, cpu_worker.CPUModelRunner = cpu_worker.CPUModelRunner, self.model_runner_cls
        try:
            super().init_device()
        finally:
            cpu_worker.CPUModelRunner = usual

    def load_model(self, *args: Any, **kwargs: Any) -> Any:
        if "Bagel" in self.model_config.architectures[0]:
            bagel.shrink_autoencoder()
        return super().load_model(*args, **kwargs)

    def encoder_loaded(self) -> bool:
        loaded = getattr(getattr(self.model_runner, "model", None), "encoder_loaded", None)
        return bool(loaded()) if callable(loaded) else False


class CpuAutoregressiveWorker(_OmniCpuWorker):
    model_runner_cls = CpuAutoregressiveRunner


class CpuGenerationWorker(_OmniCpuWorker):
    model_runner_cls = CpuGenerationRunner
