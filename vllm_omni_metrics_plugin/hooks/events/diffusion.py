"""What a diffusion engine did for a request; a part of several events."""

from __future__ import annotations

import msgspec


class DiffusionWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a diffusion engine did for a request, in its own timings; None where it gave none.

    From the metrics of ``DiffusionEngine.step_streaming``. The steps are counted where they are
    done, in ``DiffusionModelRunner``, by the calls of the noise schedulers.
    """

    #: Denoising steps that were executed, whatever was requested.
    steps: int | None = None
    #: Preparing the prompt and its pictures; None for pipelines that have nothing to prepare.
    preprocess_seconds: float | None = None
    #: Admission to output: waiting for the engine's turn, text encoding, all steps, decoding.
    exec_seconds: float | None = None
    #: Decoded tensors to images or video frames.
    postprocess_seconds: float | None = None
    #: The engine's step for the request as a whole: the three above and the output's transport.
    step_seconds: float | None = None
    #: The text encoder's part of the execution, of the pass that it may share with others. From the
    #: engine's own profiler of pipelines (``--enable-diffusion-pipeline-profiler``), as are the
    #: next two; None where it is off, or has no such part.
    text_encode_seconds: float | None = None
    #: All denoising steps.
    denoise_seconds: float | None = None
    #: Latents to pixels or sound.
    vae_decode_seconds: float | None = None
    #: Memory that the device's allocator held at most during the pass, as the engine's platform
    #: says; None where it says none.
    peak_memory_bytes: int | None = None

    @property
    def step_latency_seconds(self) -> float | None:
        """One denoising step on average; None unless both were measured."""
        if self.denoise_seconds is None or not self.steps:
            return None
        return self.denoise_seconds / self.steps
