"""The bench's figures of audio."""

from __future__ import annotations

from vllm_omni_metrics_plugin.compare.figures.figure import (
    CHAT,
    CLIENTS_WAY,
    SPEECH,
    TO_SECONDS,
    Figure,
)

_NO_AUDIO_IS_ZERO = (
    "The bench counts every completed request, with 0 for one without audio; the server counts "
    "those that had it."
)
_STREAM_OR_STAGE = (
    "Another basis. Where chunks are streamed from stage to stage, the last stage is submitted "
    "right at the beginning and both come close; where whole outputs are handed on, the stage's "
    "own share is much smaller."
)

_LISTENERS_WAY = (
    "The client's network and its own delay make packets late and early. The bench has completed "
    "requests only, with 0 for one without audio; the server has every stream with audio, those "
    "that their listener left and those that failed included."
)

AUDIO: tuple[Figure, ...] = (
    Figure(
        name="audio_ttfp_seconds",
        aggregate="count",
        bench="num_audio_ttfp_samples",
        judged="no",
        family="audio_ttfp_seconds",
        backends=(*SPEECH, *CHAT),
        bench_meaning="Completed requests.",
        server_meaning="Requests whose first audio packet left the engine, streamed ones only.",
        why=_NO_AUDIO_IS_ZERO,
    ),
    Figure(
        name="audio_ttfp_seconds",
        aggregate="mean",
        bench="mean_audio_ttfp_ms",
        judged="time",
        family="audio_ttfp_seconds",
        to_unit=TO_SECONDS,
        backends=(*SPEECH, *CHAT),
        bench_meaning=(
            "Request sent to the first bytes of the body (speech, raw PCM without a header) or the "
            "first audio event (chat)."
        ),
        server_meaning="Arrival to the first audio packet that leaves the engine.",
        why=CLIENTS_WAY,
    ),
    Figure(
        name="audio_ttfp_seconds",
        aggregate="quantile",
        bench="audio_ttfp_ms",
        judged="time",
        family="audio_ttfp_seconds",
        to_unit=TO_SECONDS,
        backends=(*SPEECH, *CHAT),
        bench_meaning="Percentile of the same.",
        server_meaning="Percentile of the same, as exactly as the buckets know it.",
        why=CLIENTS_WAY,
    ),
    Figure(
        name="audio_frames_total",
        aggregate="total",
        bench="total_audio_frames",
        judged="exact",
        family="audio_frames_total",
        backends=(*SPEECH, *CHAT),
        bench_meaning=(
            "Samples per channel received by completed requests: bytes of PCM over 2 (speech), "
            "what the WAV headers say (chat)."
        ),
        server_meaning="Samples per channel that left the engine, aborted requests included.",
        why="Aborted and failed requests are in the server's number only.",
    ),
    Figure(
        name="audio_duration_seconds",
        aggregate="sum",
        bench="total_audio_duration_s",
        judged="exact",
        family="audio_duration_seconds",
        backends=(*SPEECH, *CHAT),
        bench_meaning=(
            "Frames over the sample rate: 24 kHz mono unless the bench's environment says "
            "otherwise (speech), what the WAV headers say (chat)."
        ),
        server_meaning="Frames over the sample rate that the model's output states.",
        why="A model of another rate than 24 kHz: tell the bench, it cannot see it in raw PCM.",
    ),
    Figure(
        name="audio_duration_seconds",
        aggregate="mean",
        bench="mean_audio_duration_s",
        judged="ratio",
        family="audio_duration_seconds",
        backends=(*SPEECH, *CHAT),
        bench_meaning="The same per completed request.",
        server_meaning="The same per completed request with audio.",
        why=_NO_AUDIO_IS_ZERO,
    ),
    Figure(
        name="audio_rtf_end_to_end",
        aggregate="mean",
        bench="mean_audio_rtf",
        judged="no",
        family="audio_rtf",
        backends=SPEECH,
        bench_meaning="Mean of: request sent to answer read, over the audio's length.",
        server_meaning="`audio_rtf`: mean of the stage's submit to finish, over the length.",
        why=_STREAM_OR_STAGE,
    ),
    Figure(
        name="audio_rtf_stream",
        aggregate="mean",
        bench="mean_audio_rtf",
        judged="no",
        family="audio_rtf",
        backends=CHAT,
        bench_meaning="Mean of: request sent to the last audio event, over the audio's length.",
        server_meaning="`audio_rtf`: mean of the stage's submit to finish, over the length.",
        why=_STREAM_OR_STAGE,
    ),
    Figure(
        name="audio_rtf_end_to_end",
        aggregate="total",
        bench="mean_e2el_ms",
        bench_times="completed",
        bench_over="total_audio_duration_s",
        judged="ratio",
        family="e2e_request_latency_seconds",
        over="audio_duration_seconds",
        to_unit=TO_SECONDS,
        backends=(*SPEECH, *CHAT),
        bench_meaning="All requests' time over all audio.",
        server_meaning="All requests' time over all audio.",
        why="The same formula on both sides; needs `e2el` among the bench's percentile metrics.",
    ),
    Figure(
        name="audio_underrun_seconds",
        aggregate="mean",
        bench="mean_audio_underrun_s",
        judged="time",
        family="audio_underrun_seconds",
        zero_is_measured=True,
        backends=SPEECH,
        bench_meaning=(
            "The longest that a player who began with the first bytes would have been behind, as "
            "the bytes came."
        ),
        server_meaning="The same, as the packets left the engine.",
        why=_LISTENERS_WAY,
    ),
    Figure(
        name="audio_underrun_seconds",
        aggregate="quantile",
        bench="audio_underrun_s",
        judged="time",
        family="audio_underrun_seconds",
        zero_is_measured=True,
        backends=SPEECH,
        bench_meaning="Percentile of the same.",
        server_meaning="Percentile of the same, as exactly as the buckets know it.",
        why=_LISTENERS_WAY,
    ),
    Figure(
        name="audio_continuous",
        aggregate="share",
        bench="audio_continuity_ok_rate",
        judged="no",
        family="audio_underrun_seconds",
        at_most=0.1,
        zero_is_measured=True,
        backends=SPEECH,
        bench_meaning="Completed requests whose underrun is 100 ms at most.",
        server_meaning="Streams with audio whose underrun is.",
        why=(
            "A stream of about 100 ms may be on either side of it for each observer. The bench "
            "counts a request without audio as continuous; its bound is another if "
            "`VLLM_OMNI_BENCH_AUDIO_CONTINUITY_THRESHOLD_S` says so, and the server has none "
            "without a bucket of 0.1."
        ),
    ),
)
