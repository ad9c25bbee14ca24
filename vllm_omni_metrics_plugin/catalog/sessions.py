"""The families of sessions of speech in and out at once, and of their turns."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.buckets import INFERENCE_SECONDS, SECONDS, WAIT_SECONDS
from vllm_omni_metrics_plugin.catalog.family import MODEL, STAGE, Family

#: Why the engine refuses a session; any other word of its counts as ``other``.
REFUSALS = (
    *("resource_exhausted", "session_exists", "invalid_argument", "failed_precondition"),
    *("timeout", "other"),
)

SESSIONS: tuple[Family, ...] = (
    Family(
        stem="sessions",
        kind="gauge",
        labels=("model_name", "state"),
        unit="sessions",
        help="Sessions of speech in and out at once that are open now: with their client, or "
        "detached, as it is gone and may come back.",
        event="omni_session_opened",
        formula="+1 per session until omni_session_closed, by omni_session_attachment",
        known={"state": ("open", "detached")},
    ),
    Family(
        stem="sessions_closed_total",
        kind="counter",
        labels=("model_name", "reason"),
        unit="sessions",
        help="Sessions that are over, by why.",
        event="omni_session_closed",
        formula="+1 per session",
        known={"reason": ("client", "disconnect", "idle", "error", "shutdown", "other")},
    ),
    Family(
        stem="sessions_refused_total",
        kind="counter",
        labels=("model_name", "code"),
        unit="sessions",
        help="Sessions that were not opened; resource_exhausted when there are too many.",
        event="omni_session_refused",
        formula="+1 per refusal; other for a code that is not known",
        known={"code": REFUSALS},
    ),
    Family(
        stem="session_duration_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="How long sessions were open.",
        event="omni_session_closed",
        formula="duration_seconds",
        buckets=SECONDS,
    ),
    Family(
        stem="voice_detection_sessions",
        kind="gauge",
        labels=MODEL,
        unit="sessions",
        help="Open sessions in which the server listens for speech now.",
        event="omni_voice_detection",
        formula="+1 when active, -1 when not",
    ),
    Family(
        stem="voice_detection_inference_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="How long the voice detector took to score one frame of 32 ms, loading of its model "
        "left out.",
        event="omni_voice_scored",
        formula="each of inference_seconds",
        buckets=INFERENCE_SECONDS,
    ),
    Family(
        stem="voice_detection_errors_total",
        kind="counter",
        labels=("model_name", "reason"),
        unit="errors",
        help="Times when the server wanted to listen for speech and could not; unavailable when a "
        "session goes on without a detector.",
        event="omni_voice_failed",
        formula="+1 per failure",
        known={"reason": ("unavailable", "settings", "bad_audio", "failed")},
    ),
    Family(
        stem="turns_total",
        kind="counter",
        labels=("model_name", "outcome"),
        unit="turns",
        help="Every answer that began in a session once, by how it ended; only stop and length "
        "were generated to their end.",
        event="omni_turn_finished",
        formula="+1 per turn",
        known={
            "outcome": ("stop", "length", "barge_in", "cancel", "close", "abort", "error"),
        },
    ),
    Family(
        stem="turns_unheard_total",
        kind="counter",
        labels=MODEL,
        unit="turns",
        help="Turns with audio that nobody heard: they ended while the client was gone, who never "
        "came back.",
        event="omni_turn_played",
        formula="+1 per turn that is unheard",
    ),
    Family(
        stem="turn_latency_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="End of the user's speech as the server heard it, or the client's commit, to the "
        "first audio of the answer.",
        event="omni_turn_finished",
        formula="latency_seconds",
        buckets=WAIT_SECONDS,
        missing=("deferred", "unknown_speech"),
    ),
    Family(
        stem="turn_heard_latency_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival of the last piece with the user's speech in it to the first audio of the "
        "answer: what a user waits.",
        event="omni_turn_finished",
        formula="heard_latency_seconds",
        buckets=WAIT_SECONDS,
        missing=("deferred", "unknown_speech"),
    ),
    Family(
        stem="turn_endpoint_delay_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival of the last piece with the user's speech in it until the server heard that "
        "it had ended.",
        event="omni_turn_finished",
        formula="endpoint_delay_seconds, where the server detects speech",
        buckets=WAIT_SECONDS,
        missing=("unknown_speech",),
    ),
    Family(
        stem="barge_in_reaction_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="The user's interruption, as the server heard it or the client said it, until the "
        "client was told that the answer ends.",
        event="omni_barge_in",
        formula="reaction_seconds",
        buckets=WAIT_SECONDS,
        missing=("unknown_cause",),
    ),
    Family(
        stem="turn_audio_samples_total",
        kind="counter",
        labels=(*STAGE, "fate"),
        unit="samples per channel",
        help="Audio of turns by what became of it: acknowledged as played, discarded after an "
        "interruption, or unknown, as clients need not say.",
        event="omni_turn_played",
        formula="+ acknowledged, + discarded, + unknown",
        known={"fate": ("acknowledged", "discarded", "unknown")},
        missing=("unknown_replica",),
    ),
)
