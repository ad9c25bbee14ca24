"""What ``vllm bench serve --omni`` calls a figure, what we call it, and whether they are the same.

The keys are those of the file that ``--save-result`` writes; what they mean was read in
``vllm_omni.benchmarks`` (``patch.patch``: one request function per backend, and ``benchmark``,
which chooses what is saved; ``metrics.metrics``: ``calculate_metrics``).

A figure has the stem of one of our families if it is defined as that family is. The bench looks
from the client's side, so its times have the way to the server and back on top; that is the same
figure, seen from elsewhere. A figure on another basis (stage, end to end, stream) has another name.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.compare.figures.figure import (
    CHAT,
    IMAGES,
    SPEECH,
    TO_SECONDS,
    VIDEOS,
    Figure,
)
from vllm_omni_metrics_plugin.compare.figures.visual import IMAGE, VIDEO

_WAY = (
    "The client's way: its connection (the first request opens one), HTTP and the parsing of the "
    "request in front; encoding, HTTP and the client's own delay behind."
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

REQUESTS: tuple[Figure, ...] = (
    Figure(
        name='requests_success_total{finished_reason=~"stop|length"}',
        aggregate="total",
        bench="completed",
        judged="exact",
        family="requests_success_total",
        successes=True,
        bench_meaning="Answers with status 200 that were read to the end, warm-ups not counted.",
        server_meaning="Accepted requests that ended by stop or length, whoever asked.",
        why="More on the server: warm-ups, the ready check, or somebody else's requests.",
    ),
    Figure(
        name='requests_success_total{finished_reason!~"stop|length"}',
        aggregate="total",
        bench="failed",
        judged="no",
        family="requests_success_total",
        successes=False,
        bench_meaning="Everything else: other status, broken connection, time-out.",
        server_meaning="Accepted requests that ended by abort or error.",
        why="A refused request (HTTP 4xx) failed for the bench and was not accepted by the server.",
    ),
    Figure(
        name="e2e_request_latency_seconds",
        aggregate="mean",
        bench="mean_e2el_ms",
        judged="time",
        family="e2e_request_latency_seconds",
        to_unit=TO_SECONDS,
        backends=(*SPEECH, *CHAT, *IMAGES),
        bench_meaning="Request sent to answer read, of completed requests.",
        server_meaning="Arrival to complete response, of completed requests.",
        why=_WAY,
    ),
    Figure(
        name="e2e_request_latency_seconds",
        aggregate="quantile",
        bench="e2el_ms",
        judged="time",
        family="e2e_request_latency_seconds",
        to_unit=TO_SECONDS,
        backends=(*SPEECH, *CHAT, *IMAGES),
        bench_meaning="Percentile of the same.",
        server_meaning="Percentile of the same, as exactly as the buckets know it.",
        why=_WAY,
    ),
    Figure(
        name="video_job_seconds",
        aggregate="mean",
        bench="mean_e2el_ms",
        judged="no",
        family="e2e_request_latency_seconds",
        to_unit=TO_SECONDS,
        backends=VIDEOS,
        bench_meaning="Job created to seen as completed by a client that looks every 2 s.",
        server_meaning="Arrival to complete output of the engine.",
        why="Another basis: the bench's has the encoding of the file and up to one poll interval.",
    ),
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
        why=_WAY,
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
        why=_WAY,
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
)

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
        "*_audio_underrun_s",
        "How long a player would have stood still, as the chunks reached the client (speech).",
        "nothing: only the client knows when a chunk arrived",
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
        "nothing: they pass by the engine's `generate`, where the plugin looks",
    ),
)
