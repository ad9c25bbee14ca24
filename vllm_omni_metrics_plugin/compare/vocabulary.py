"""What ``vllm bench serve --omni`` calls a figure, what we call it, and whether they are the same.

The keys are those of the file that ``--save-result`` writes; what they mean was read in
``vllm_omni.benchmarks`` (``patch.patch``: one request function per backend, and ``benchmark``,
which chooses what is saved; ``metrics.metrics``: ``calculate_metrics``).

A figure has the stem of one of our families if it is defined as that family is. The bench looks
from the client's side, so its times have the way to the server and back on top; that is the same
figure, seen from elsewhere. A figure on another basis (stage, end to end, stream) has another name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_omni_metrics_plugin import catalog

#: How both sides make one number of many requests.
Aggregate = Literal["total", "count", "sum", "mean", "quantile"]

#: How far apart both sides may be. ``exact``: not at all. ``time``: the tolerance, and the client's
#: way on top. ``ratio``: the tolerance. ``no``: they are shown beside each other, no more.
Judged = Literal["exact", "time", "ratio", "no"]

SPEECH = ("openai-audio-speech",)
CHAT = ("openai-chat-omni", "daily-omni")
IMAGES = ("/v1/images/generations", "/v1/images/edits", "openai-image-edits-omni")
VIDEOS = ("/v1/videos",)
#: Sessions outside ``generate``, which the plugin does not observe.
DUPLEX = ("openai-realtime-duplex", "openai-realtime-tts")


@dataclass(frozen=True)
class Figure:
    """One number of the bench and the one of ours beside it.

    ``bench`` is the key in the result file; for a quantile it is what follows ``median_``,
    ``p99_`` or ``percentiles_`` there. ``family`` is the stem whose samples make the server's
    number, over all label sets.
    """

    name: str
    aggregate: Aggregate
    bench: str
    family: str
    judged: Judged
    bench_meaning: str
    server_meaning: str
    #: What stands between both sides, or why they cannot be compared.
    why: str = ""
    #: Factor from the bench's unit to ours.
    to_unit: float = 1.0
    #: With which ``--backend`` the key has this meaning; empty for all.
    backends: tuple[str, ...] = ()
    #: The bench's number is ``bench`` times and over these keys' values.
    bench_times: str | None = None
    bench_over: str | None = None
    #: The server's number is the family's sum over the sum or value of this one.
    over: str | None = None
    #: Only successes (stop, length) of a family by finished_reason, or only the others.
    successes: bool | None = None

    @property
    def bench_formula(self) -> str:
        """The bench's number in its own words."""
        if self.aggregate == "quantile":
            return f"p<n>_{self.bench}"
        times = f" * {self.bench_times}" if self.bench_times else ""
        over = f" / {self.bench_over}" if self.bench_over else ""
        return self.bench + times + over

    @property
    def is_another(self) -> bool:
        """Whether the server's number is on another basis, and so has another name."""
        return self.judged == "no" and self.name.partition("{")[0] != self.family

    @property
    def server_formula(self) -> str:
        """The server's number from its samples, without the ``vllm:omni_`` that all begin with."""
        total = self.family if self.counts(self.family) else f"{self.family}_sum"
        if self.successes is not None:
            total += f'{{finished_reason{"=" if self.successes else "!"}~"stop|length"}}'
        if self.over is not None:
            return f"{total} / {self.over if self.counts(self.over) else f'{self.over}_sum'}"
        if self.aggregate == "mean":
            return f"{self.family}_sum / {self.family}_count"
        if self.aggregate == "count":
            return f"{self.family}_count"
        if self.aggregate == "quantile":
            return f"quantile of {self.family}_bucket"
        return total

    @property
    def is_counter(self) -> bool:
        return self.counts(self.family)

    @staticmethod
    def counts(stem: str) -> bool:
        """Whether the family is a counter, with nothing but its value to show."""
        return catalog.BY_STEM[stem].kind == "counter"


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
_SECONDS = 0.001

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
        to_unit=_SECONDS,
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
        to_unit=_SECONDS,
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
        to_unit=_SECONDS,
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
        to_unit=_SECONDS,
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
        to_unit=_SECONDS,
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
        to_unit=_SECONDS,
        backends=(*SPEECH, *CHAT),
        bench_meaning="All requests' time over all audio.",
        server_meaning="All requests' time over all audio.",
        why="The same formula on both sides; needs `e2el` among the bench's percentile metrics.",
    ),
)

IMAGE: tuple[Figure, ...] = (
    Figure(
        name="image_num_total",
        aggregate="total",
        bench="total_images",
        judged="exact",
        family="image_num_total",
        backends=(*IMAGES, *CHAT),
        bench_meaning="Images that could be decoded, of completed requests.",
        server_meaning="Images of completed requests.",
    ),
    Figure(
        name="image_pixels",
        aggregate="mean",
        bench="average_pixels_per_image",
        judged="ratio",
        family="image_pixels",
        backends=IMAGES,
        bench_meaning="Width x height of the decoded images.",
        server_meaning="Width x height of each image, as generated.",
    ),
    Figure(
        name="image_generation_time_seconds",
        aggregate="mean",
        bench="mean_image_generation_ms",
        judged="ratio",
        family="image_generation_time_seconds",
        to_unit=_SECONDS,
        backends=IMAGES,
        bench_meaning="What the server's answer says: the stage's generation time.",
        server_meaning="Stage submit to stage finish of a completed request.",
        why="The bench of vllm-omni 0.30 prints it and does not save it.",
    ),
    Figure(
        name="denoise_step_time_ms",
        aggregate="mean",
        bench="mean_denoise_step_latency_ms",
        judged="no",
        family="diffusion_exec_time_ms",
        over="diffusion_steps_total",
        backends=IMAGES,
        bench_meaning="What the server's answer says: the pipeline's denoising over its steps.",
        server_meaning="Execution over executed steps, with the encoding and decoding around them.",
        why="Another basis: the server's has the whole execution in it.",
    ),
)

VIDEO: tuple[Figure, ...] = (
    Figure(
        name="video_frames_total",
        aggregate="total",
        bench="total_video_frames",
        judged="exact",
        family="video_frames_total",
        backends=VIDEOS,
        bench_meaning="What the job says, or else what was asked for.",
        server_meaning="Frames that were generated, of completed requests.",
        why="The bench takes the order for the delivery where the job does not state it.",
    ),
    Figure(
        name="video_duration_seconds",
        aggregate="sum",
        bench="total_video_duration_s",
        judged="exact",
        family="video_duration_seconds",
        backends=VIDEOS,
        bench_meaning="What the job says, or else what was asked for.",
        server_meaning="Frames over the frame rate that the endpoint encodes at.",
        why="The bench takes the order for the delivery where the job does not state it.",
    ),
    Figure(
        name="video_generation_time_seconds",
        aggregate="mean",
        bench="mean_video_generation_ms",
        judged="ratio",
        family="video_generation_time_seconds",
        to_unit=_SECONDS,
        backends=VIDEOS,
        bench_meaning="What the job says: the slowest stage's generation, or else its inference.",
        server_meaning="Stage submit to stage finish of a completed request.",
    ),
    Figure(
        name="video_generation_time_seconds",
        aggregate="quantile",
        bench="video_generation_ms",
        judged="ratio",
        family="video_generation_time_seconds",
        to_unit=_SECONDS,
        backends=VIDEOS,
        bench_meaning="Percentile of the same.",
        server_meaning="Percentile of the same, as exactly as the buckets know it.",
    ),
    Figure(
        name="video_rtf",
        aggregate="mean",
        bench="mean_video_rtf",
        judged="ratio",
        family="video_rtf",
        backends=VIDEOS,
        bench_meaning="That generation time over the playing time.",
        server_meaning="Stage generation time over playing time.",
    ),
    Figure(
        name="video_rtf",
        aggregate="quantile",
        bench="video_rtf",
        judged="ratio",
        family="video_rtf",
        backends=VIDEOS,
        bench_meaning="Percentile of the same.",
        server_meaning="Percentile of the same, as exactly as the buckets know it.",
    ),
)

FIGURES: tuple[Figure, ...] = (*REQUESTS, *AUDIO, *IMAGE, *VIDEO)
