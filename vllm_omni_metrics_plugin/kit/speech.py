"""The dashboard of speech: when it starts, whether it stalls, how it ends."""

from __future__ import annotations

from vllm_omni_metrics_plugin.kit.panels import (
    Dashboard,
    Panel,
    Row,
    Target,
    legend,
    quantiles,
    rates,
)
from vllm_omni_metrics_plugin.kit.promql import per_second, ratio, share_of

_UNDERRUN = "audio_underrun_seconds"
_REPLICA = ("stage", "replica")
_START = (
    quantiles("Time to the first packet", "audio_ttfp_seconds", "s"),
    quantiles("First sound that is heard", "audio_first_audible_seconds", "s"),
    quantiles("Silence at the start", "audio_leading_silence_seconds", "s"),
    quantiles("First packet, by replica", "audio_ttfp_seconds", "s", _REPLICA, (0.9,)),
    Panel(
        "Where the time to the first packet goes",
        "percentunit",
        "critical_path_seconds_total",
        (
            Target(
                share_of(
                    "critical_path_seconds_total",
                    ("segment", "stage"),
                    anchor='="first_packet"',
                ),
                legend(("segment", "stage")),
            ),
        ),
        "stacked",
        "As shares.",
        16,
    ),
)
_PLAY = (
    quantiles("Underrun", _UNDERRUN, "s", note="0.1 s is where the bench draws its line."),
    Panel(
        "Streams without a gap",
        "percentunit",
        _UNDERRUN,
        (
            Target(
                ratio(
                    per_second(f"{_UNDERRUN}_bucket", le='="0.1"'),
                    per_second(f"{_UNDERRUN}_count"),
                ),
                "at most 100 ms",
            ),
        ),
        "number",
        "The share that plays through if its start is delayed by 100 ms.",
    ),
    Panel(
        "Stalled share of playing",
        "percentunit",
        "audio_stall_seconds_total",
        (
            Target(
                ratio(
                    per_second("audio_stall_seconds_total", ("player",)),
                    per_second("audio_played_seconds_total", ("player",)),
                ),
                legend(("player",)),
            ),
        ),
        note="Seconds of silence for each second that was played.",
    ),
    rates("Stalls", "audio_stalls_total", "short", ("player",)),
    quantiles("Longest stall", "audio_longest_stall_seconds", "s", ("player",), (0.9, 0.99)),
    rates("How streams end", "audio_streams_total", "short", ("ending",)),
)
_SPEED = (
    quantiles("Real-time factor", "audio_rtf", "none"),
    Panel(
        "Made faster than it plays",
        "percentunit",
        "audio_rtf",
        (
            Target(
                ratio(
                    per_second("audio_rtf_bucket", le='=~"1|1[.]0"'), per_second("audio_rtf_count")
                ),
                "up to 1",
            ),
        ),
        "number",
    ),
    quantiles("Real-time factor, by replica", "audio_rtf", "none", _REPLICA, (0.9,)),
    quantiles("Length of speech", "audio_duration_seconds", "s"),
    rates(
        "Speech made",
        "audio_duration_seconds_sum",
        "none",
        _REPLICA,
        note="Seconds of audio for each second.",
    ),
    rates("Samples", "audio_frames_total", "short", _REPLICA),
)

SPEECH = Dashboard(
    "speech",
    "vLLM-Omni / Speech",
    "When speech starts, whether it stalls, how streams end, and how fast it is made.",
    (
        Row("Start", _START),
        Row("What listeners hear", _PLAY),
        Row("How fast it is made", _SPEED),
    ),
)
