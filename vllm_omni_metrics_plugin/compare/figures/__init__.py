"""What ``vllm bench serve --omni`` calls a figure, what we call it, and whether they are the same.

The keys are those of the file that ``--save-result`` writes; what they mean was read in
``vllm_omni.benchmarks`` (``patch.patch``: one request function per backend, and ``benchmark``,
which chooses what is saved; ``metrics.metrics``: ``calculate_metrics``).

A figure has the stem of one of our families if it is defined as that family is. The bench looks
from the client's side, so its times have the way to the server and back on top; that is the same
figure, seen from elsewhere. A figure on another basis (stage, end to end, stream) has another name.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.compare.figures.audio import AUDIO
from vllm_omni_metrics_plugin.compare.figures.figure import Figure
from vllm_omni_metrics_plugin.compare.figures.requests import REQUESTS
from vllm_omni_metrics_plugin.compare.figures.visual import IMAGE, VIDEO

__all__ = ["AUDIO", "BENCH_ONLY", "FIGURES", "IMAGE", "REQUESTS", "VIDEO", "Figure"]

FIGURES: tuple[Figure, ...] = (*REQUESTS, *AUDIO, *IMAGE, *VIDEO)

#: What the bench saves and no figure stands for: its keys, what they are, and what the server has.
BENCH_ONLY: tuple[tuple[str, str, str], ...] = (
    (
        "request_throughput",
        "Completed requests over the bench's own duration.",
        '`sum(rate(vllm:omni_requests_success_total{finished_reason=~"stop|length"}[1m]))`',
    ),
    (
        "audio_throughput",
        "Seconds of audio per second.",
        "`sum(rate(vllm:omni_audio_duration_seconds_sum[1m]))`",
    ),
    (
        "image_throughput",
        "Images per second.",
        "`sum(rate(vllm:omni_image_num_total[1m]))`",
    ),
    (
        "video_throughput",
        "Seconds of video per second.",
        "`sum(rate(vllm:omni_video_duration_seconds_sum[1m]))`",
    ),
    (
        "audio_underrun_event_count",
        "Chunks of a response (speech) that came later than a player would have needed who never "
        "stands still; it is not saved. After one gap all that follows may be late for that player "
        "and counts, though a listener's player has waited and plays on: more than the silences in "
        "2,187 of 4,000 random streams.",
        '`vllm:omni_audio_stalls_total{player="0"}`: the silences of a player',
    ),
    (
        "*_ttft_ms, *_tpot_ms, *_itl_ms, *_tokens, output_throughput",
        "Text tokens, as the client saw them.",
        "vLLM's own `vllm:time_to_first_token_seconds` and its like, by stage and replica",
    ),
    (
        "stage_durations_*, *_peak_memory_mb",
        "What the server's answers say of the diffusion engine.",
        "`vllm:omni_diffusion_*_time_ms` for the times, each a slice of its own definition",
    ),
    (
        "duplex_*",
        "Sessions of speech in and out at once.",
        "nothing: `vllm:omni_turn_*` and `vllm:omni_sessions*` have definitions of their own",
    ),
)
