"""The families that vLLM-Omni 0.30 publishes itself, and what of ours stands beside each."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.tables import markdown

PREFIX = "vllm_omni:"


@dataclass(frozen=True)
class Native:
    """One family of the engine's."""

    #: Without its prefix, as /metrics shows it.
    name: str
    #: Stems of ours that answer the same question; none where the plugin has no answer.
    ours: tuple[str, ...]
    #: What the engine's counts, or does not, where ours say another thing.
    differs: str


_LAST_STAGE = "Of the stage that ends the request alone"
_NO_VAD = "Nothing in the engine feeds it."

FAMILIES: tuple[Native, ...] = (
    Native(
        "num_requests_running",
        ("num_requests_running",),
        "Requests that were given to a stage, less those that the stages' latest statistics say "
        "wait in one. Ours execute in at least one stage at the moment of the scrape.",
    ),
    Native(
        "num_requests_waiting",
        ("num_requests_waiting",),
        "By the latest statistics, which come once a second and with outputs. Ours hold at the "
        "moment of the scrape; running + waiting are the open requests in both.",
    ),
    Native(
        "requests_success_total",
        ("requests_success_total",),
        "Told by the last output: an endpoint that fails after it, and a client that leaves, count "
        "as a success. Errors and refusals are `abort`. Ours is what the client was answered.",
    ),
    Native(
        "requests_failed_total",
        ("requests_failed_total",),
        "Four words, of which `stage_error` is every exception of `generate`. What fails after the "
        "last output is not in it.",
    ),
    Native(
        "e2e_request_latency_s",
        ("e2e_request_latency_seconds",),
        "Begins when the engine has taken the request in, not at its arrival, and has the requests "
        "whose endpoint fails after the last output.",
    ),
    Native(
        "prompt_tokens_total",
        ("prompt_tokens_total",),
        "Without a stage and a replica; counted when the last stage is done.",
    ),
    Native(
        "generation_tokens_total",
        ("generation_tokens_total",),
        "The same. It adds the tokens of all stages; ours has them apart.",
    ),
    Native(
        "stage_gen_time_s",
        ("stage_generation_time_seconds",),
        "Without a replica, and by the wall clock. Stages that send the client nothing have no "
        "sample.",
    ),
    Native(
        "request_queue_wait_s",
        ("request_queue_time_seconds",),
        "Ends when the first stage is given the request; its wait in the stage's scheduler is not "
        "in it. Ours ends with the first start.",
    ),
    Native(
        "stage_waiting_requests",
        ("stage_requests_waiting",),
        "Over all replicas, from their latest statistics; of diffusion stages, as outputs come.",
    ),
    Native(
        "stage_in_queue_s",
        ("stage_queue_time_seconds",),
        "Diffusion stages alone, without a replica, and only requests that are finished.",
    ),
    Native(
        "num_inference_steps",
        ("num_inference_steps",),
        "The steps that were asked for; 0 and a pipeline's own default are none. Ours ran. Its "
        "buckets end at 10.",
    ),
    Native(
        "image_count_total",
        ("image_num_total",),
        "Without a stage and a replica, and counted before the client is served.",
    ),
    Native(
        "image_pixels",
        ("image_pixels",),
        "All images of a request as one sample, in buckets that end at 10 pixels. Ours has one for "
        "each image.",
    ),
    Native(
        "image_ttfp_s",
        ("image_ttfp_seconds",),
        "Begins at the submit to the stage, not at the arrival.",
    ),
    Native(
        "peak_memory_mb",
        ("peak_memory_bytes",),
        "Of the latest request, in MiB, without a replica. Ours is the highest of the replica.",
    ),
    Native(
        "kv_wait_s",
        ("kv_wait_seconds",),
        "The same times; ours has the stage and the replica as well.",
    ),
    Native(
        "diffusion_kv_load_s",
        ("transfer_in_flight_time_ms", "transfer_rx_decode_time_ms"),
        "The call that receives, even where nothing is to come; none in engines that go step by "
        "step. Ours are those of each payload, by edge.",
    ),
    Native(
        "diffusion_exec_s",
        ("diffusion_exec_time_ms",),
        f"{_LAST_STAGE}.",
    ),
    Native(
        "diffusion_exec_per_step_s",
        ("diffusion_exec_time_ms", "diffusion_steps_total"),
        "The execution, with its wait for its turn, over the steps that were asked for. Ours are "
        "two families to be divided.",
    ),
    Native(
        "diffusion_preprocess_s",
        ("diffusion_preprocess_time_ms",),
        f"{_LAST_STAGE}; 0 where a pipeline has nothing to prepare. Ours has no sample then.",
    ),
    Native(
        "diffusion_postprocess_s",
        ("diffusion_postprocess_time_ms",),
        f"{_LAST_STAGE}. Its help speaks of VAE decoding, which is in the execution.",
    ),
    Native(
        "diffusion_forward_s",
        ("diffusion_forward_seconds",),
        f"The same, with the pipeline profiler alone. {_LAST_STAGE}.",
    ),
    Native(
        "denoise_step_latency_s",
        ("denoise_step_latency_seconds",),
        "Over the steps that were asked for, of images alone. Ours is over those that ran.",
    ),
    Native(
        "vae_decode_s",
        ("vae_decode_seconds",),
        f"The same, with the pipeline profiler alone. {_LAST_STAGE}.",
    ),
    Native(
        "audio_ttfp_s",
        ("audio_ttfp_seconds",),
        "Of streamed speech and chat, by the wall clock; realtime and video-chat websockets have "
        "no sample.",
    ),
    Native(
        "audio_duration_s",
        ("audio_duration_seconds",),
        "Takes 24 kHz where the output states no rate. Ours has no sample then, but a missing one.",
    ),
    Native(
        "audio_rtf",
        ("audio_rtf",),
        "The same quotient, with the duration above; also of requests whose endpoint fails later.",
    ),
    Native(
        "audio_frames_total",
        ("audio_frames_total",),
        "When the request is finished: what an aborted one had sent is not in it.",
    ),
    Native(
        "audio_underrun_s",
        ("audio_underrun_seconds",),
        "The same number, of complete streams of speech and chat alone. Ours has those that their "
        "listeners left.",
    ),
    Native(
        "audio_continuity_ok_total",
        ("audio_underrun_seconds",),
        'Ours is the bucket `le="0.1"`, and any other bound.',
    ),
    Native(
        "audio_skipped_requests_total",
        ("metrics_missing_samples_total",),
        "Ours is the reason `empty_audio` of the family `audio_duration_seconds`.",
    ),
    Native(
        "speech_stream_completed_total",
        ("audio_streams_total",),
        "Of speech alone; whether its client was there to the end is not looked at. "
        "Ours are `smooth` and `stalled`.",
    ),
    Native(
        "speech_stream_aborted_total",
        ("audio_streams_total",),
        "Why the generator ended. Ours says where the listener was, in the other endings.",
    ),
    Native(
        "transfer_size_bytes",
        ("transfer_size_bytes",),
        "Always 0 bytes: a submit by the orchestrator, whose size it does not know. Payloads of "
        "the connectors, as chunks and KV caches, are in none of these families. Ours are those.",
    ),
    Native(
        "transfer_tx_s",
        ("transfer_tx_time_ms",),
        "The orchestrator's submit to the next stage. Ours is the connector's `put`.",
    ),
    Native(
        "transfer_rx_s",
        ("transfer_rx_decode_time_ms",),
        "Always 0 s, once for each request and stage but the first. Ours is each `get` that got "
        "something.",
    ),
    Native(
        "transfer_in_flight_s",
        ("transfer_in_flight_time_ms",),
        "Always 0 s, likewise. Ours is each payload's, and missing between hosts.",
    ),
    Native("realtime_vad_active_sessions", ("voice_detection_sessions",), _NO_VAD),
    Native(
        "realtime_vad_inference_latency_s",
        ("voice_detection_inference_seconds",),
        f"{_NO_VAD} It would be of a piece as the client sent it. Ours is of a frame of 32 ms, "
        "whatever pieces the client sends.",
    ),
    Native(
        "realtime_vad_endpoint_delay_s",
        ("turn_endpoint_delay_seconds",),
        f"{_NO_VAD} Ours is from the arrival of the last piece with speech.",
    ),
    Native("realtime_vad_errors_total", ("voice_detection_errors_total",), _NO_VAD),
)


def native() -> str:
    rows = (
        (
            f"`{PREFIX}{family.name}`",
            ", ".join(f"`{catalog.BY_STEM[stem].name}`" for stem in family.ours) or "none",
            family.differs,
        )
        for family in FAMILIES
    )
    return markdown(("native", "ours", "how the native one differs"), rows)
