"""What several seams feed together: names of hooks, and stems of families."""

from __future__ import annotations

from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES

#: The hooks of a request that any engine may serve, and of one that a server alone serves.
REQUEST = (
    "omni_request_arrived",
    "omni_stage_submitted",
    "omni_request_finished",
    "omni_request_judged",
    "omni_media_packet",
    "omni_audio_finished",
    *("omni_stream_finished", "omni_playback_stalled"),
)
#: What says how a request ended.
OUTCOMES = ("requests_success_total", "requests_failed_total")
VISUAL = ("omni_image_finished", "omni_video_finished")
GENERATION_TIMES = ("image_generation_time_seconds", "video_generation_time_seconds")
#: What the schedulers alone see.
EXECUTIONS = (
    *("omni_stage_started", "omni_stage_ended"),
    *("request_queue_time_seconds", "oldest_waiting_seconds", "num_requests_waiting"),
)
JOINED = ("omni_replica_joined",)
#: What a replica is shown as is taken back.
LEFT = ("omni_replica_left", "stage_info")
STEPS = ("diffusion_steps_total", "num_inference_steps")
TRANSFERS = ("omni_transfer_sent", "omni_transfer_received", "omni_transfer_failed")
KV_WAITS = ("omni_kv_waited",)
ENGINE = ("omni_engine_stats", ENGINE_FAMILIES)
#: Sessions of speech in and out at once, and their turns; what a client sends says since when it
#: waits.
SESSIONS = ("omni_session_opened", "omni_session_closed")
TURNS = ("omni_turn_started", "omni_turn_finished", "omni_turn_played", "omni_barge_in")
WAITS = (
    *("turn_latency_seconds", "turn_heard_latency_seconds", "turn_endpoint_delay_seconds"),
    "barge_in_reaction_seconds",
)
#: Whether the server listens for speech in them, and how that goes.
VOICE = ("omni_voice_detection", "omni_voice_scored", "omni_voice_failed")
