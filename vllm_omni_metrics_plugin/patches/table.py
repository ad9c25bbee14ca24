"""The seams, as data: every place in the engine that the plugin wraps."""

from __future__ import annotations

from vllm_omni_metrics_plugin.patches import client, pipeline, stages
from vllm_omni_metrics_plugin.patches.seam import Seam

_REQUESTS = (
    "num_requests_running",
    "num_requests_waiting",
    "requests_success_total",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
)
_AUDIO = ("audio_ttfp_seconds", "audio_duration_seconds", "audio_rtf", "audio_frames_total")

SEAMS: tuple[Seam, ...] = (
    Seam(
        name="engine_init",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase.__init__",
        form="function",
        wrap=pipeline.wrap_engine_init,
        feeds=("stage_info",),
    ),
    Seam(
        name="generate",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni.generate",
        form="async generator",
        wrap=client.wrap_generate,
        feeds=(*_REQUESTS, *_AUDIO),
        leading=("prompt", "sampling_params", "request_id"),
    ),
    Seam(
        name="request_id",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni._get_unique_request_id",
        form="static function",
        wrap=client.wrap_request_id,
        feeds=(*_REQUESTS, *_AUDIO),
        leading=("external_request_id",),
    ),
    Seam(
        name="result",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase._process_single_result",
        form="function",
        wrap=client.wrap_result,
        feeds=("requests_success_total",),
        leading=("result",),
    ),
    Seam(
        name="stage_submit",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.submit_initial",
        form="coroutine",
        wrap=stages.wrap_submit,
        feeds=("num_requests_running", "request_queue_time_seconds", "audio_rtf"),
        leading=("request_id", "req_state"),
        keywords=("affinity_request_id",),
    ),
    Seam(
        name="stage_finish",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.build_stage_metrics",
        form="function",
        wrap=stages.wrap_stage_metrics,
        feeds=("audio_rtf",),
        leading=("request_outputs",),
        keywords=("replica_id",),
    ),
)
