"""The bench's figures of requests: how many ended, how, and after what time."""

from __future__ import annotations

from vllm_omni_metrics_plugin.compare.figures.figure import (
    CHAT,
    CLIENTS_WAY,
    IMAGES,
    SPEECH,
    TO_SECONDS,
    VIDEOS,
    Figure,
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
        server_meaning="Requests that ended by stop or length, whoever asked.",
        why="More on the server: the bench's warm-ups and ready check, or somebody else's.",
    ),
    Figure(
        name='requests_success_total{finished_reason!~"stop|length"}',
        aggregate="total",
        bench="failed",
        judged="no",
        family="requests_success_total",
        successes=False,
        bench_meaning="Everything else: other status, broken connection, time-out.",
        server_meaning="Requests that reached the engine and ended by abort, error or rejected.",
        why="What was refused before it reached the engine (HTTP 4xx) failed for the bench alone.",
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
        why=CLIENTS_WAY,
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
        why=CLIENTS_WAY,
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
