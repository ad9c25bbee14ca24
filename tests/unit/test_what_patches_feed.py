"""Which families a patch feeds, by the hooks whose events they come from."""

from __future__ import annotations

import dataclasses

import pytest

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import plugins
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam
from vllm_omni_metrics_plugin.patches.table import SEAMS, seams_of

REQUESTS = {
    *{"num_requests_waiting", "oldest_waiting_seconds", "stage_requests_waiting"},
    *{"requests_success_total", "e2e_request_latency_seconds", "request_queue_time_seconds"},
    "requests_failed_total",
}
OUTCOMES = {"requests_success_total", "requests_failed_total"}
STARTS = {
    *{"num_requests_running", "stage_requests_running", "stage_busy_seconds_total"},
    *{"stage_queue_time_seconds", "stage_input_wait_seconds", "stage_execute_time_seconds"},
}
ENDS = {"stage_execute_time_seconds"}
SCHEDULERS = STARTS | {
    *{"num_requests_waiting", "oldest_waiting_seconds", "request_queue_time_seconds"}
}
AUDIO = {"audio_ttfp_seconds", "audio_duration_seconds", "audio_rtf", "audio_frames_total"}
IMAGES = {"image_ttfp_seconds", "image_num_total", "image_pixels"}
VIDEOS = {"video_duration_seconds", "video_rtf", "video_frames_total"}
GENERATION = {"image_generation_time_seconds", "video_generation_time_seconds"}
TOKENS = {"prompt_tokens_total", "generation_tokens_total"}
DIFFUSION = {
    *{"diffusion_text_encode_seconds", "diffusion_forward_seconds", "vae_decode_seconds"},
    *{"denoise_step_latency_seconds", "peak_memory_bytes"},
    *{"diffusion_preprocess_time_ms", "diffusion_exec_time_ms"},
    *{"diffusion_postprocess_time_ms", "diffusion_step_time_ms"},
}
STEPS = {"diffusion_steps_total", "num_inference_steps"}
STAGES = {"stage_info"}
TRANSFERS = {
    *{"transfer_size_bytes", "transfer_tx_time_ms", "transfer_rx_decode_time_ms"},
    *{"transfer_in_flight_time_ms", "transfer_failures_total"},
}
ENGINE = {ENGINE_FAMILIES}
SESSIONS = {"sessions", "sessions_closed_total", "session_duration_seconds"}
WAITS = {
    *{"turn_latency_seconds", "turn_heard_latency_seconds", "turn_endpoint_delay_seconds"},
    "barge_in_reaction_seconds",
}
TURNS = WAITS | {"turns_total", "turns_unheard_total", "turn_audio_samples_total"}
LISTENING = {"voice_detection_sessions", "voice_detection_errors_total"}
INFERENCE = {"voice_detection_inference_seconds"}
#: Written down by hand, patch by patch; families that came later are not in it.
FED = {
    "engine_init": STAGES,
    "engine_shutdown": STAGES,
    "generate": REQUESTS | AUDIO | IMAGES | VIDEOS,
    "request_id": REQUESTS | AUDIO | IMAGES | VIDEOS,
    "http": OUTCOMES,
    "speech": OUTCOMES,
    "warmup": REQUESTS | AUDIO,
    "video_job": OUTCOMES,
    "result": OUTCOMES,
    "offline_batch": REQUESTS | AUDIO,
    "offline_request": REQUESTS | AUDIO,
    "stage_submit": STARTS | {"stage_requests_waiting", "audio_rtf"},
    "stage_finish": {
        *{"audio_rtf", "stage_generation_time_seconds"},
        *(ENDS | GENERATION | DIFFUSION | TOKENS),
    },
    "kv_waits": {"kv_wait_seconds"},
    "video_endpoint": {"video_duration_seconds", "video_rtf"},
    "denoising": STEPS,
    "denoising_stepwise": STEPS,
    "replica_joins": STAGES,
    "replica_leaves": STAGES,
    "replica_dies": STAGES,
    "token_times": ENGINE,
    "stat_logger": ENGINE,
    "scheduler_init": ENGINE,
    "scheduler_stats": ENGINE,
    "idle": ENGINE,
    "token_starts": SCHEDULERS,
    "generation_starts": SCHEDULERS,
    "diffusion_starts": SCHEDULERS,
    "diffusion_ends": ENDS,
    "connectors": TRANSFERS,
    "session_events": SESSIONS | TURNS | LISTENING,
    "session_commands": WAITS,
    "session_control": {"sessions", "sessions_refused_total"},
    "session_shutdown": SESSIONS,
    "voice_detection": LISTENING | INFERENCE,
    "voice_inference": INFERENCE,
    "voice_model": INFERENCE,
    "iterations": ENGINE,
    "iterations_recorded": ENGINE,
    "idle_recorded": ENGINE,
}
KNOWN = set().union(*FED.values())
#: Hooks of what is not of the engine, or of the plugin itself.
OWN_HOOKS = {"omni_configured", "omni_patch_reported", "omni_events_dropped"}


@pytest.mark.parametrize("release", [release.version for release in RELEASES])
def test_patches_feed_what_was_written_down_by_hand(release: str) -> None:
    for seam in seams_of(release):
        if seam.name in FED:
            assert set(seam.families) & KNOWN == FED[seam.name], seam.name
    assert len(FED) > len(SEAMS)


@pytest.mark.parametrize("hook", sorted(set(vars(plugins.hooks)) - OWN_HOOKS))
def test_new_family_of_any_hook_is_fed_without_a_word_in_the_table(
    hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newcomer = dataclasses.replace(catalog.FAMILIES[0], stem="brand_new_total", event=hook)
    monkeypatch.setattr(catalog, "FAMILIES", (*catalog.FAMILIES, newcomer))
    feeding = {seam.name for seam in SEAMS if "brand_new_total" in seam.families}
    assert feeding == {seam.name for seam in SEAMS if hook in seam.feeds}
    assert feeding


def test_seam_feeds_the_families_of_a_hook_but_for_those_that_it_names() -> None:
    seam = Seam(
        name="sample",
        module="engine",
        attribute="Engine.speak",
        form="function",
        wrap=lambda original, _: original,
        feeds=("omni_transfer_sent", "audio_rtf", "a file"),
        without=("transfer_tx_time_ms",),
    )
    assert seam.families == ("audio_rtf", "transfer_size_bytes", "a file")


def test_what_the_plugin_says_of_itself_needs_no_patch() -> None:
    own = {family.stem for family in catalog.FAMILIES if family.is_own}
    assert own
    assert own.isdisjoint(stem for seam in SEAMS for stem in seam.families)
