"""The seams of earlier releases: places that moved, changed their names, or are needed no more."""

from __future__ import annotations

from vllm_omni_metrics_plugin.patches import schedulers
from vllm_omni_metrics_plugin.patches.diffusion import steps
from vllm_omni_metrics_plugin.patches.engine_families import lost_stats, stats
from vllm_omni_metrics_plugin.patches.feeds import ENGINE, EXECUTIONS, STEPS
from vllm_omni_metrics_plugin.patches.seams.seam import Seam

EARLIER: tuple[Seam, ...] = (
    Seam(
        name="denoising",
        module="vllm_omni.diffusion.worker.diffusion_model_runner",
        attribute="DiffusionModelRunner.execute_model",
        form="function",
        wrap=steps.wrap_execute_request,
        feeds=STEPS,
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
        feeds=STEPS,
        leading=("state", "output"),
        roles=("server", "stage_engine", "worker"),
        since="0.24.0",
        until="0.28.0",
    ),
    Seam(
        name="diffusion_starts",
        module="vllm_omni.diffusion.sched.base_scheduler",
        attribute="_BaseScheduler.schedule",
        form="function",
        wrap=schedulers.wrap_diffusion_schedule,
        feeds=EXECUTIONS,
        roles=("server", "stage_engine"),
        until="0.24.0",
    ),
    Seam(
        name="diffusion_ends",
        module="vllm_omni.diffusion.sched.base_scheduler",
        attribute="_BaseScheduler._finish_requests",
        form="function",
        wrap=schedulers.wrap_finish,
        feeds=("omni_stage_ended",),
        leading=("statuses",),
        roles=("server", "stage_engine"),
        until="0.24.0",
    ),
    Seam(
        name="token_times",
        module="vllm_omni.engine.output_processor",
        attribute="MultimodalOutputProcessor.__init__",
        form="function",
        wrap=stats.wrap_output_processor_init,
        feeds=ENGINE,
        keywords=("log_stats",),
        until="0.24.0",
    ),
    Seam(
        name="iterations",
        module="vllm_omni.engine.output_processor",
        attribute="MultimodalOutputProcessor.process_outputs",
        form="function",
        wrap=lost_stats.wrap_process_outputs,
        feeds=ENGINE,
        keywords=("iteration_stats",),
        until="0.24.0",
    ),
    Seam(
        name="iterations_recorded",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool.process_llm_raw_outputs",
        form="coroutine",
        wrap=lost_stats.wrap_process_raw_outputs,
        feeds=ENGINE,
        leading=("replica_id", "raw_outputs"),
        until="0.24.0",
    ),
    Seam(
        name="idle_recorded",
        module="vllm_omni.engine.stage_pool",
        attribute="StagePool._poll_stage_raw",
        form="coroutine",
        wrap=lost_stats.wrap_poll,
        feeds=ENGINE,
        leading=("client",),
        until="0.24.0",
    ),
)
