"""The families of audio."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.buckets import RTF, SECONDS, WAIT_SECONDS
from vllm_omni_metrics_plugin.catalog.family import STAGE, Family

AUDIO: tuple[Family, ...] = (
    Family(
        stem="audio_ttfp_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="Arrival to the first audio packet that leaves the engine; streamed requests only.",
        event="omni_media_packet",
        formula="since_arrival_seconds of the packet with index 0, if streamed",
        buckets=WAIT_SECONDS,
        missing=("empty_audio", "unknown_replica", "unknown_arrival", "during_input"),
    ),
    Family(
        stem="audio_duration_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="Length of the audio of a completed request, as generated, before speed.",
        event="omni_audio_finished",
        formula="samples / sample_rate",
        buckets=SECONDS,
        missing=("empty_audio", "no_sample_rate", "unknown_replica"),
    ),
    Family(
        stem="audio_rtf",
        kind="histogram",
        labels=STAGE,
        unit="ratio",
        help="Stage generation time over audio length; above 1 the client hears gaps.",
        event="omni_audio_finished",
        formula="generation_seconds / duration_seconds",
        buckets=RTF,
        missing=(
            *("empty_audio", "no_sample_rate", "unknown_replica", "no_generation_time"),
            "during_input",
        ),
    ),
    Family(
        stem="audio_frames_total",
        kind="counter",
        labels=STAGE,
        unit="samples per channel",
        help="Audio samples per channel that left the engine, as generated, before speed; aborted "
        "requests included.",
        event="omni_media_packet",
        formula="+ samples",
        missing=("unknown_replica",),
    ),
)
