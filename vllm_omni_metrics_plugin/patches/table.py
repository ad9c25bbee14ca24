"""The seams, as data: every place in the engine that the plugin wraps, on every release."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_omni_metrics_plugin.patches import (
    connectors,
    generate,
    http,
    offline,
    replicas,
    stages,
    warmup,
)
from vllm_omni_metrics_plugin.patches.diffusion import steps, video_endpoint
from vllm_omni_metrics_plugin.patches.engine_families import lost_stats, scheduler, stats
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam

#: The hooks of a request that any engine may serve, and of one that a server alone serves.
_REQUEST = (
    "omni_request_arrived",
    "omni_stage_submitted",
    "omni_request_finished",
    "omni_media_packet",
    "omni_audio_finished",
)
_VISUAL = ("omni_image_finished", "omni_video_finished")
_GENERATION_TIMES = ("image_generation_time_seconds", "video_generation_time_seconds")
_JOINED = ("omni_replica_joined",)
#: What a replica is shown as is taken back.
_LEFT = ("omni_replica_left", "stage_info")
_STEPS = ("diffusion_steps_total",)
_TRANSFERS = ("omni_transfer_sent", "omni_transfer_received", "omni_transfer_failed")
_ENGINE = ("omni_engine_stats", ENGINE_FAMILIES)

_SEAMS: tuple[Seam, ...] = (
    Seam(
        name="engine_init",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase.__init__",
        form="function",
        wrap=replicas.wrap_engine_init,
        feeds=_JOINED,
    ),
    Seam(
        name="engine_shutdown",
        module="vllm_omni.entrypoints.omni_base",
        attribute="OmniBase.shutdown",
        form="function",
        wrap=replicas.wrap_shutdown,
        feeds=_LEFT,
    ),
    Seam(
        name="generate",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni.generate",
        form="async generator",
        wrap=generate.wrap_generate,
        feeds=(*_REQUEST, *_VISUAL),
        without=_GENERATION_TIMES,
        leading=("prompt", "sampling_params", "request_id"),
    ),
    Seam(
        name="request_id",
        module="vllm_omni.entrypoints.async_omni",
        attribute="AsyncOmni._get_unique_request_id",
        form="static function",
        wrap=generate.wrap_request_id,
        feeds=(*_REQUEST, *_VISUAL),
        without=_GENERATION_TIMES,
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
        feeds=_REQUEST,
    ),
    Seam(
        name="offline_batch",
        module="vllm_omni.entrypoints.omni",
        attribute="Omni._run_generation",
        form="generator",
        wrap=offline.wrap_run_generation,
        feeds=_REQUEST,
        leading=("prompts", "sampling_params_list"),
    ),
    Seam(
        name="offline_request",
        module="vllm_omni.engine.async_omni_engine",
        attribute="AsyncOmniEngine.add_request",
        form="function",
        wrap=offline.wrap_add_request,
        feeds=_REQUEST,
        leading=("request_id",),
        keywords=("prompt", "sampling_params_list"),
    ),
    Seam(
        name="stage_submit",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.submit_initial",
        form="coroutine",
        wrap=stages.wrap_submit,
        feeds=("omni_stage_submitted", "request_queue_time_seconds", "audio_rtf"),
        leading=("request_id", "req_state"),
        keywords=("affinity_request_id",),
    ),
    Seam(
        name="stage_finish",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.build_stage_metrics",
        form="function",
        wrap=stages.wrap_stage_metrics,
        feeds=("omni_stage_finished", "audio_rtf", *_GENERATION_TIMES),
        without=_STEPS,
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
        feeds=_STEPS,
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
        feeds=_STEPS,
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
        feeds=_JOINED,
        leading=("input_addr",),
    ),
    Seam(
        name="replica_leaves",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.remove_client",
        form="function",
        wrap=replicas.wrap_remove_client,
        feeds=_LEFT,
        leading=("input_addr",),
    ),
    Seam(
        name="replica_dies",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.evict_replica",
        form="function",
        wrap=replicas.wrap_evict_replica,
        feeds=_LEFT,
        leading=("replica_id",),
        since="0.28.0",
    ),
    Seam(
        name="token_times",
        module="vllm_omni.outputs.output_processor",
        attribute="MultimodalOutputProcessor.__init__",
        form="function",
        wrap=stats.wrap_output_processor_init,
        feeds=_ENGINE,
        keywords=("log_stats",),
        since="0.26.0",
    ),
    Seam(
        name="stat_logger",
        module="vllm_omni.engine.orchestrator",
        attribute="Orchestrator._init_metrics_state",
        form="function",
        wrap=stats.wrap_metrics_state,
        feeds=_ENGINE,
        leading=("stage_pools",),
        keywords=("log_stats",),
    ),
    Seam(
        name="scheduler_init",
        module="vllm.v1.core.sched.scheduler",
        attribute="Scheduler.__init__",
        form="function",
        wrap=scheduler.wrap_scheduler_init,
        feeds=_ENGINE,
        keywords=("log_stats",),
        roles=("stage_engine",),
    ),
    Seam(
        name="scheduler_stats",
        module="vllm_omni.core.sched.omni_scheduler_mixin",
        attribute="OmniSchedulerMixin.make_stats",
        form="function",
        wrap=scheduler.wrap_make_stats,
        feeds=_ENGINE,
        roles=("stage_engine",),
    ),
    Seam(
        name="idle",
        module="vllm.v1.engine.core",
        attribute="EngineCoreProc._notify_idle_state_callbacks",
        form="function",
        wrap=scheduler.wrap_idle,
        feeds=_ENGINE,
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
    # Places that moved, changed their names, or are needed no more.
    Seam(
        name="denoising",
        module="vllm_omni.diffusion.worker.diffusion_model_runner",
        attribute="DiffusionModelRunner.execute_model",
        form="function",
        wrap=steps.wrap_execute_request,
        feeds=_STEPS,
        leading=("req",),
        roles=("server", "stage_engine", "worker"),
        until="0.22.0",
    ),
    Seam(
        name="denoising_stepwise",
        module="vllm_omni.diffusion.worker.diffusion_model_runner",
        attribute="DiffusionModelRunner._attach_stepwise_metrics",
        form="function",
        wrap=steps.wrap_stepwise_metadata,
        feeds=_STEPS,
        leading=("state", "output"),
        roles=("server", "stage_engine", "worker"),
        since="0.24.0",
        until="0.28.0",
    ),
    Seam(
        name="token_times",
        module="vllm_omni.engine.output_processor",
        attribute="MultimodalOutputProcessor.__init__",
        form="function",
        wrap=stats.wrap_output_processor_init,
        feeds=_ENGINE,
        keywords=("log_stats",),
        until="0.24.0",
    ),
    Seam(
        name="iterations",
        module="vllm_omni.engine.output_processor",
        attribute="MultimodalOutputProcessor.process_outputs",
        form="function",
        wrap=lost_stats.wrap_process_outputs,
        feeds=_ENGINE,
        keywords=("iteration_stats",),
        until="0.24.0",
    ),
    Seam(
        name="iterations_recorded",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.process_llm_raw_outputs",
        form="coroutine",
        wrap=lost_stats.wrap_process_raw_outputs,
        feeds=_ENGINE,
        leading=("replica_id", "raw_outputs"),
        until="0.24.0",
    ),
    Seam(
        name="idle_recorded",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool._poll_stage_raw",
        form="coroutine",
        wrap=lost_stats.wrap_poll,
        feeds=_ENGINE,
        leading=("client",),
        until="0.24.0",
    ),
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
