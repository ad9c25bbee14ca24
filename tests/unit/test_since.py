"""Hooks and fields say with which version they came, and no new one can do without."""

from __future__ import annotations

import pytest

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.hooks.since import NEWER_FIELDS, since
from vllm_omni_metrics_plugin.testing import EVENTS

#: The fields with which each hook was released; one that is added later goes to NEWER_FIELDS.
RELEASED = {
    "omni_configured": "settings role versions",
    "omni_patch_reported": "name target status reason",
    "omni_replica_joined": "model_name stage replica stage_name stage_type",
    "omni_replica_left": "model_name stage replica",
    "omni_engine_stats": "stage replica scheduler_stats iteration_stats",
    "omni_request_arrived": "request_id external_request_id model_name arrived_at",
    "omni_stage_submitted": "request_id stage replica submitted_at parent_request_id",
    "omni_stage_started": (
        "request_id stage replica started_at submitted_at input_at parent_request_id model_name"
    ),
    "omni_stage_ended": "request_id stage replica ended_at started_at model_name",
    "omni_stage_finished": (
        "request_id stage replica finished_at generation_seconds tokens_in tokens_out "
        "finish_reason model_name diffusion"
    ),
    "omni_media_packet": (
        "request_id model_name modality index samples sample_rate stage replica left_at "
        "since_arrival_seconds streamed"
    ),
    "omni_audio_finished": (
        "request_id model_name stage replica samples sample_rate duration_seconds "
        "generation_seconds first_packet_seconds streamed"
    ),
    "omni_playback_stalled": (
        "request_id model_name stage replica buffer_seconds stalled_at played_seconds"
    ),
    "omni_stream_finished": (
        "request_id model_name stage replica ending underrun_seconds players "
        "leading_silence_seconds first_audible_seconds unheard requests trace_id"
    ),
    "omni_image_finished": (
        "request_id model_name stage replica images pixels unknown_form first_image_seconds "
        "generation_seconds diffusion"
    ),
    "omni_video_finished": (
        "request_id model_name stage replica videos frames frame_rate duration_seconds "
        "first_video_seconds generation_seconds diffusion"
    ),
    "omni_request_finished": "request_id model_name outcome end_to_end_seconds queue_seconds",
    "omni_request_judged": "request_id model_name objective verdict broken",
    "omni_session_opened": "session_id model_name opened_at",
    "omni_session_refused": "model_name code",
    "omni_session_attachment": "session_id model_name attached",
    "omni_session_closed": "session_id model_name reason duration_seconds turns attached",
    "omni_voice_detection": "session_id model_name active",
    "omni_voice_scored": (
        "session_id model_name inference_seconds load_seconds probability speaking"
    ),
    "omni_voice_failed": "session_id model_name reason",
    "omni_turn_started": ("session_id turn_id request_id model_name origin started_at deferred"),
    "omni_turn_finished": (
        "session_id turn_id request_id model_name outcome origin latency_seconds "
        "heard_latency_seconds endpoint_delay_seconds duration_seconds samples deferred detached"
    ),
    "omni_turn_played": (
        "session_id turn_id model_name stage replica acknowledged discarded unknown unheard"
    ),
    "omni_barge_in": "session_id turn_id model_name cause reaction_seconds generating",
    "omni_transfer_sent": (
        "model_name from_stage from_replica to_stage to_replica key connector size_bytes "
        "duration_seconds sent_at clock"
    ),
    "omni_transfer_received": (
        "model_name from_stage from_replica to_stage to_replica key connector size_bytes "
        "duration_seconds received_at in_flight_seconds clock"
    ),
    "omni_transfer_failed": (
        "model_name from_stage to_stage operation replica key connector reason"
    ),
    "omni_kv_waited": (
        "request_id model_name stage replica connector wait_seconds parent_request_id"
    ),
    "omni_events_dropped": "reason count",
}


def parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("hook", EVENTS)
def test_hook_says_with_which_version_it_came(hook: str) -> None:
    major, minor, _ = parts(__version__)  # what is not released yet comes with the next one
    assert parts("0.1") <= parts(since(hook)) <= (major, minor + 1)


@pytest.mark.parametrize("hook", EVENTS)
def test_field_came_with_its_hook_or_says_when(hook: str) -> None:
    newer = {field for name, field in NEWER_FIELDS if name == hook}
    assert set(EVENTS[hook].__struct_fields__) == {*RELEASED[hook].split(), *newer}


def test_newer_fields_are_newer_than_their_hook_and_no_newer_than_the_next_version() -> None:
    major, minor, _ = parts(__version__)  # what is not released yet comes with the next one
    for (hook, field), version in NEWER_FIELDS.items():
        assert parts(since(hook)) < parts(version) <= (major, minor + 1), field
        assert since(hook, field) == version


def test_field_without_a_version_of_its_own_came_with_its_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(NEWER_FIELDS, ("omni_media_packet", "channels"), "0.2")
    assert since("omni_media_packet", "samples") == since("omni_media_packet") == "0.1"
    assert since("omni_media_packet", "channels") == "0.2"
    with pytest.raises(AttributeError):
        since("omni_nonsense")
