"""The dashboard of sessions of speech in and out at once: who is in one, and how turns go."""

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
from vllm_omni_metrics_plugin.kit.promql import share_of

_FATES = "turn_audio_samples_total"
_SESSIONS = beside(
    level("Open sessions", "sessions", "short", ("state",), form="stacked"),
    rates("How sessions end", "sessions_closed_total", "short", ("reason",)),
    rates("Refused", "sessions_refused_total", "short", ("code",)),
    quantiles("Length of sessions", "session_duration_seconds", "s"),
)
_TURNS = (
    rates("Turns by outcome", "turns_total", "short", ("outcome",)),
    quantiles("What a user waits", "turn_heard_latency_seconds", "s"),
    quantiles("End of speech to the first audio", "turn_latency_seconds", "s"),
    quantiles("To hear that the user has ended", "turn_endpoint_delay_seconds", "s"),
    quantiles("To react to an interruption", "barge_in_reaction_seconds", "s"),
)
_VOICE = (
    level("Listened to", "voice_detection_sessions", "short"),
    quantiles(
        "Scoring a frame", "voice_detection_inference_seconds", "s", note="A frame lasts 32 ms."
    ),
    rates(
        "Why it cannot listen",
        "voice_detection_errors_total",
        "short",
        ("reason",),
        note="Per second.",
    ),
)
_HEARD = (
    Panel(
        "What becomes of the audio",
        "percentunit",
        _FATES,
        (Target(share_of(_FATES, ("fate",)), legend(("fate",))),),
        "stacked",
        "As shares of all samples.",
    ),
    rates("Audio, by replica", _FATES, "short", ("stage", "replica"), note="In samples."),
    rates("Turns that nobody heard", "turns_unheard_total", "short"),
)

REALTIME = Dashboard(
    "realtime",
    "vLLM-Omni / Realtime",
    "Sessions of speech in and out at once, and the turns in them.",
    (
        Row("Sessions", _SESSIONS),
        Row("Turns", _TURNS),
        Row("What is heard", _HEARD),
        Row("Voice detection", _VOICE),
    ),
)
