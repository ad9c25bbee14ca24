"""The seams, as data: every place in the engine that the plugin wraps, on every release."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_omni_metrics_plugin.patches import (
    connectors,
    earlier,
    generate,
    http,
    offline,
    replicas,
    stages,
    warmup,
)
from vllm_omni_metrics_plugin.patches.diffusion import steps, video_endpoint
from vllm_omni_metrics_plugin.patches.engine_families import scheduler, stats
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam

_REQUESTS = (
    "num_requests_running",
    "num_requests_waiting",
    "requests_success_total",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
)
_AUDIO = ("audio_ttfp_seconds", "audio_duration_seconds", "audio_rtf", "audio_frames_total")
_IMAGES = ("image_ttfp_seconds", "image_num_total", "image_pixels")
_VIDEOS = ("video_duration_seconds", "video_rtf", "video_frames_total")
_GENERATION_TIMES = ("image_generation_time_seconds", "video_generation_time_seconds")
_DIFFUSION = (
    "diffusion_preprocess_time_ms",
    "diffusion_exec_time_ms",
    "diffusion_postprocess_time_ms",
    "diffusion_step_time_ms",
)

_TRANSFERS = (
    "transfer_size_bytes",
    "transfer_tx_time_ms",
    "transfer_rx_decode_time_ms",
    "transfer_in_flight_time_ms",
    "transfer_failures_total",
)

_SEAMS: tuple[Seam, ...] = (
    Seam(
        name="engine_init",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase.__init__",
        form="function",
        wrap=replicas.wrap_engine_init,
        feeds=("stage_info",),
    ),
    Seam(
        name="engine_shutdown",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase.shutdown",
        form="function",
        wrap=replicas.wrap_shutdown,
        feeds=("stage_info",),
    ),
    Seam(
        name="generate",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni.generate",
        form="async generator",
        wrap=generate.wrap_generate,
        feeds=(*_REQUESTS, *_AUDIO, *_IMAGES, *_VIDEOS),
        leading=("prompt", "sampling_params", "request_id"),
    ),
    Seam(
        name="request_id",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni._get_unique_request_id",
        form="static function",
        wrap=generate.wrap_request_id,
        feeds=(*_REQUESTS, *_AUDIO, *_IMAGES, *_VIDEOS),
        leading=("external_request_id",),
    ),
    Seam(
        name="result",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase._process_single_result",
        form="function",
        wrap=generate.wrap_result,
        feeds=("requests_success_total",),
        leading=("result",),
    ),
    Seam(
        name="http",
        module="fastapi.applications",
        attribute="FastAPI.__call__",
        form="coroutine",
        wrap=http.wrap_application,
        feeds=("requests_success_total",),
        leading=("scope", "receive", "send"),
    ),
    Seam(
        name="speech",
        module="vllm_omni.entrypoints.openai.serving_speech",
        attribute="OmniOpenAIServingSpeech._generate_audio_bytes",
        form="coroutine",
        wrap=http.wrap_speech,
        feeds=("requests_success_total",),
    ),
    Seam(
        name="warmup",
        module="vllm_omni.entrypoints.openai.serving_speech",
        attribute="OmniOpenAIServingSpeech.warmup",
        form="coroutine",
        wrap=warmup.wrap_warmup,
        feeds=(*_REQUESTS, *_AUDIO),
    ),
    Seam(
        name="offline_batch",
        module="vllm_omni.entrypoints.omni",
        attribute="Omni._run_generation",
        form="generator",
        wrap=offline.wrap_run_generation,
        feeds=(*_REQUESTS, *_AUDIO),
        leading=("prompts", "sampling_params_list"),
    ),
    Seam(
        name="offline_request",
        module="vllm_omni.engine.async_omni_engine",
        attribute="AsyncOmniEngine.add_request",
        form="function",
        wrap=offline.wrap_add_request,
        feeds=(*_REQUESTS, *_AUDIO),
        leading=("request_id",),
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
        feeds=("audio_rtf", *_GENERATION_TIMES, *_DIFFUSION),
        leading=("request_outputs",),
        keywords=("replica_id",),
    ),
    Seam(
        name="video_endpoint",
        module="vllm_omni.entrypoints.openai.serving_video",
        attribute="OmniOpenAIServingVideo._run_and_extract",
        form="coroutine",
        wrap=video_endpoint.wrap_run_and_extract,
        feeds=("video_duration_seconds", "video_rtf"),
    ),
    Seam(
        name="video_job",
        module="vllm_omni.entrypoints.openai.serving_video",
        attribute="OmniOpenAIServingVideo.generate_video_bytes",
        form="coroutine",
        wrap=video_endpoint.wrap_generate_bytes,
        feeds=("requests_success_total",),
    ),
    Seam(
        name="denoising",
        module="vllm_omni.diffusion.worker.diffusion_model_runner",
        attribute="DiffusionModelRunner._execute_request_list",
        form="function",
        wrap=steps.wrap_execute_requests,
        feeds=("diffusion_steps_total",),
        leading=("reqs",),
        roles=("server", "stage_engine", "worker"),
        since="0.24.0",
    ),
    Seam(
        name="denoising_stepwise",
        module="vllm_omni.diffusion.worker.diffusion_model_runner",
        attribute="DiffusionModelRunner._attach_stepwise_metadata",
        form="function",
        wrap=steps.wrap_stepwise_metadata,
        feeds=("diffusion_steps_total",),
        leading=("state", "output"),
        roles=("server", "stage_engine", "worker"),
        since="0.30.0",
    ),
    Seam(
        name="replica_joins",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.add_client",
        form="function",
        wrap=replicas.wrap_add_client,
        feeds=("stage_info",),
        leading=("input_addr",),
    ),
    Seam(
        name="replica_leaves",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.remove_client",
        form="function",
        wrap=replicas.wrap_remove_client,
        feeds=("stage_info",),
        leading=("input_addr",),
    ),
    Seam(
        name="replica_dies",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.evict_replica",
        form="function",
        wrap=replicas.wrap_evict_replica,
        feeds=("stage_info",),
        leading=("replica_id",),
        since="0.28.0",
    ),
    Seam(
        name="token_times",
        module="vllm_omni.outputs.output_processor",
        attribute="MultimodalOutputProcessor.__init__",
        form="function",
        wrap=stats.wrap_output_processor_init,
        feeds=(ENGINE_FAMILIES,),
        keywords=("log_stats",),
        since="0.26.0",
    ),
    Seam(
        name="stat_logger",
        module="vllm_omni.engine.orchestrator",
        attribute="Orchestrator._init_metrics_state",
        form="function",
        wrap=stats.wrap_metrics_state,
        feeds=(ENGINE_FAMILIES,),
        leading=("stage_pools",),
        keywords=("log_stats",),
    ),
    Seam(
        name="scheduler_init",
        module="vllm.v1.core.sched.scheduler",
        attribute="Scheduler.__init__",
        form="function",
        wrap=scheduler.wrap_scheduler_init,
        feeds=(ENGINE_FAMILIES,),
        keywords=("log_stats",),
        roles=("stage_engine",),
    ),
    Seam(
        name="scheduler_stats",
        module="vllm_omni.core.sched.omni_scheduler_mixin",
        attribute="OmniSchedulerMixin.make_stats",
        form="function",
        wrap=scheduler.wrap_make_stats,
        feeds=(ENGINE_FAMILIES,),
        roles=("stage_engine",),
    ),
    Seam(
        name="idle",
        module="vllm.v1.engine.core",
        attribute="EngineCoreProc._notify_idle_state_callbacks",
        form="function",
        wrap=scheduler.wrap_idle,
        feeds=(ENGINE_FAMILIES,),
        roles=("stage_engine",),
    ),
    Seam(
        name="connectors",
        module="vllm_omni.distributed.omni_connectors.factory",
        attribute="OmniConnectorFactory.create_connector",
        form="class function",
        wrap=connectors.wrap_create_connector,
        feeds=_TRANSFERS,
        leading=("spec",),
        roles=("server", "stage_engine", "worker"),
    ),
    *earlier.SEAMS,
)

#: Why a release that is older than a seam has no such place, or one that is younger needs none.
ABSENT: Mapping[str, str] = {
    "denoising_stepwise": "runs that go step by step hand on no count",
    "replica_dies": "the whole engine ends when a replica dies",
    "iterations": "the engine hands these statistics on itself",
    "iterations_recorded": "the engine hands these statistics on itself",
    "idle_recorded": "the engine hands these statistics on itself",
}


def seams_of(release: str) -> tuple[Seam, ...]:
    """The seams of a release of vllm-omni; of one that is not known, those of its neighbours."""
    return tuple(seam for seam in _SEAMS if seam.is_in(release))


#: Those of the newest release that the plugin knows.
SEAMS = seams_of(RELEASES[-1].version)
