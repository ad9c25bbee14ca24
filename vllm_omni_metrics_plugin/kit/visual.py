"""The dashboard of images and videos, and of the diffusion engines that make them."""

from __future__ import annotations

from vllm_omni_metrics_plugin.kit.panels import (
    Dashboard,
    Panel,
    Row,
    Target,
    beside,
    legend,
    level,
    quantiles,
    rates,
)
from vllm_omni_metrics_plugin.kit.promql import mean

_REPLICA = ("stage", "replica")
_PHASES = {
    "diffusion_preprocess_time_ms": "prepare",
    "diffusion_exec_time_ms": "execute, with the wait for its turn",
    "diffusion_postprocess_time_ms": "to pixels",
}
_PROFILED = {
    "diffusion_text_encode_seconds": "text encoder",
    "diffusion_forward_seconds": "denoising",
    "vae_decode_seconds": "VAE",
}
_IMAGES = beside(
    rates("Images", "image_num_total", "short", _REPLICA),
    quantiles("Time for a request", "image_generation_time_seconds", "s"),
    quantiles("Time to the first image", "image_ttfp_seconds", "s"),
    quantiles("Pixels of an image", "image_pixels", "short", at=(0.5, 0.9)),
)
_VIDEOS = beside(
    rates("Frames", "video_frames_total", "short", _REPLICA),
    quantiles("Time for a request", "video_generation_time_seconds", "s"),
    quantiles("Real-time factor", "video_rtf", "none"),
    quantiles("Playing time", "video_duration_seconds", "s", at=(0.5, 0.9)),
)
_ENGINE = (
    Panel(
        "Mean time by phase",
        "ms",
        "diffusion_exec_time_ms",
        tuple(Target(mean(stem), name) for stem, name in _PHASES.items()),
        "stacked",
        "Preparing and turning latents into pixels beside it.",
    ),
    quantiles("Whole step of the engine", "diffusion_step_time_ms", "ms"),
    rates("Denoising steps", "diffusion_steps_total", "short", _REPLICA),
    Panel(
        "Denoising steps of a request",
        "short",
        "num_inference_steps",
        (Target(mean("num_inference_steps", ("stage",)), legend(("stage",), "mean of")),),
    ),
    Panel(
        "Mean time by the engine's profiler",
        "s",
        "diffusion_forward_seconds",
        tuple(Target(mean(stem), name) for stem, name in _PROFILED.items()),
        "stacked",
        "The text encoder and the VAE beside it.",
    ),
    quantiles("One denoising step", "denoise_step_latency_seconds", "s", at=(0.5, 0.9)),
    level("Peak memory", "peak_memory_bytes", "bytes", _REPLICA, "max"),
)

IMAGES_AND_VIDEO = Dashboard(
    "images-and-video",
    "vLLM-Omni / Images and video",
    "How long images and videos take, and what their diffusion engines do meanwhile.",
    (Row("Images", _IMAGES), Row("Videos", _VIDEOS), Row("Diffusion engines", _ENGINE)),
)
