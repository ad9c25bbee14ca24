"""What a server's ``/metrics`` has to show, given the traffic it has seen: rules, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.measures import (
    Count,
    Labelled,
    Measure,
    Series,
    Total,
    events,
    own,
    unmeasured,
)
from vllm_omni_metrics_plugin.doctor.report import Severity


@dataclass(frozen=True)
class Rule:
    """If there is more ``traffic`` than ``beyond``, and each of ``also``, one of ``lacks`` must be.

    ``message`` is what is wrong otherwise; ``{traffic}`` in it is the number.
    """

    name: str
    severity: Severity
    traffic: tuple[Measure, ...]
    lacks: tuple[Measure, ...]
    message: str
    beyond: tuple[Measure, ...] = ()
    also: tuple[Measure, ...] = ()
    #: A rule with the same message, and more: this one is silent where that one speaks.
    unless: str = ""


@dataclass(frozen=True)
class Tally:
    """A sample of which all series stay 0; ``message`` may name its labels and ``{value}``."""

    sample: str
    severity: Severity
    message: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PluginFamily:
    """A ``prometheus_client`` family that a hook plugin made while it was loaded."""

    name: str
    #: A gauge's ``multiprocess_mode``; empty of others.
    mode: str
    #: Whether this release's vLLM unregisters a family of this name.
    unregistered: bool
    #: Whether several API servers share their numbers.
    several: bool


@dataclass(frozen=True)
class Trap:
    """What a family of a hook plugin must not be.

    ``when`` says in words what ``meets`` looks at; ``message`` follows the plugin's name and the
    family's.
    """

    name: str
    severity: Severity
    when: str
    meets: Callable[[PluginFamily], bool]
    message: str


_REQUESTS = f"{catalog.PREFIX}requests_success_total"
FINISHED = Count(_REQUESTS)
COMPLETE = Count(_REQUESTS, {"finished_reason": ("stop", "length")})
CUT_SHORT = Count(_REQUESTS, {"finished_reason": ("abort", "error", "rejected")})
OPEN = (own("num_requests_running"), own("num_requests_waiting"))
ENGINE = tuple(
    Count(f"vllm:{sample}")
    for sample in ("request_success_total", "generation_tokens_total", "prompt_tokens_total")
)

RULES: tuple[Rule, ...] = (
    Rule(
        "no_stage",
        "degraded",
        (FINISHED,),
        (own("stage_info"),),
        "{traffic} requests have ended, and no stage replica is listed: all have left or died, "
        "or they were never announced",
    ),
    Rule(
        "no_latency",
        "degraded",
        (COMPLETE,),
        (own("e2e_request_latency_seconds_count"), unmeasured("e2e_request_latency_seconds")),
        "{traffic} requests are complete, and none has an end-to-end latency",
    ),
    Rule(
        "no_queue_time",
        "degraded",
        (COMPLETE,),
        (own("request_queue_time_seconds_count"), unmeasured("request_queue_time_seconds")),
        "{traffic} requests are complete, and none has a queue time: the schedulers of their "
        "stages are not seen",
    ),
    Rule(
        "no_first_packet",
        "degraded",
        (events("media_packet"),),
        (own("audio_ttfp_seconds_count"), unmeasured("audio_ttfp_seconds")),
        "audio was streamed ({traffic} packets), and no request has a time to first packet",
        beyond=(events("audio_finished"), CUT_SHORT, *OPEN),
    ),
    Rule(
        "nothing_streamed",
        "note",
        (own("audio_duration_seconds_count"),),
        (own("audio_ttfp_seconds_count"), unmeasured("audio_ttfp_seconds")),
        "{traffic} speech outputs are complete, and none has a time to first packet: it exists for "
        "streamed requests only, and not where the engine makes the whole waveform first "
        "(async_chunk: false)",
        unless="no_first_packet",
    ),
    Rule(
        "no_audio_duration",
        "degraded",
        (events("audio_finished"),),
        (own("audio_duration_seconds_count"), unmeasured("audio_duration_seconds")),
        "{traffic} audio outputs are complete, and none has a duration",
    ),
    Rule(
        "audio_never_complete",
        "degraded",
        (own("audio_frames_total"),),
        (events("audio_finished"), CUT_SHORT, *OPEN),
        "{traffic} audio frames have left, every request is complete, and no audio output is",
    ),
    Rule(
        "no_audio_frames",
        "degraded",
        (own("audio_duration_seconds_count"),),
        (own("audio_frames_total"), unmeasured("audio_frames_total")),
        "{traffic} audio outputs are complete, and no frame of them was counted",
    ),
    Rule(
        "no_audio_rtf",
        "degraded",
        (own("audio_duration_seconds_count"),),
        (own("audio_rtf_count"), unmeasured("audio_rtf")),
        "{traffic} audio outputs are complete, and none has a real-time factor",
    ),
    Rule(
        "no_images",
        "degraded",
        (events("image_finished"),),
        (own("image_num_total"), unmeasured("image_num_total")),
        "{traffic} requests for images are complete, and no image was counted",
    ),
    Rule(
        "no_image_time",
        "degraded",
        (own("image_num_total"),),
        (own("image_generation_time_seconds_count"), unmeasured("image_generation_time_seconds")),
        "{traffic} images were generated, and none has a generation time",
    ),
    Rule(
        "no_videos",
        "degraded",
        (events("video_finished"),),
        (own("video_frames_total"), unmeasured("video_frames_total")),
        "{traffic} requests for video are complete, and no frame was counted",
    ),
    Rule(
        "no_video_duration",
        "degraded",
        (own("video_frames_total"),),
        (own("video_duration_seconds_count"), unmeasured("video_duration_seconds")),
        "{traffic} video frames were generated, and no video has a playing time",
    ),
    Rule(
        "no_diffusion_time",
        "degraded",
        (events("image_finished", "video_finished"),),
        (own("diffusion_exec_time_ms_count"), unmeasured("diffusion_exec_time_ms")),
        "{traffic} requests for images or video are complete, and the diffusion stage has no times",
        also=(own("stage_info", stage_type="diffusion"),),
    ),
    Rule(
        "no_diffusion_steps",
        "degraded",
        (events("image_finished", "video_finished"),),
        (own("diffusion_steps_total"), unmeasured("diffusion_steps_total")),
        "{traffic} requests for images or video are complete, and no denoising step was counted",
        also=(own("stage_info", stage_type="diffusion"),),
    ),
    Rule(
        "no_engine_statistics",
        "degraded",
        (COMPLETE,),
        ENGINE,
        "{traffic} requests are complete, and the engine families of every stage are at zero",
        also=(own("stage_info", stage_type="llm"),),
    ),
    Rule(
        "engine_label",
        "degraded",
        (Labelled("vllm:", "engine"),),
        (),
        "{traffic} series of the engine still have its label `engine` instead of stage and replica",
    ),
    Rule(
        "native_placeholders",
        "note",
        (FINISHED,),
        (Total("vllm_omni:"),),
        "{traffic} requests have ended, and the engine's own vllm_omni:* are all at 0, as without "
        "--log-stats: read vllm:omni_* instead; VLLM_OMNI_METRICS_NATIVE=0 leaves the others out",
        also=(Series("vllm_omni:"),),
    ),
    Rule(
        "no_transfers",
        "note",
        (events("stage_finished"),),
        (
            own("transfer_size_bytes_count"),
            own("transfer_failures_total"),
            unmeasured("transfer_size_bytes"),
        ),
        "requests went through several stages, and no transfer between them was seen: either the "
        "orchestrator itself hands on what they make, or the stage engines' events do not arrive",
        beyond=(events("request_finished"), *OPEN),
        also=(COMPLETE,),
    ),
    Rule(
        "no_receipts",
        "degraded",
        (own("transfer_size_bytes_count"),),
        (own("transfer_rx_decode_time_ms_count"), unmeasured("transfer_rx_decode_time_ms")),
        "{traffic} payloads were sent between stages, and none was seen to arrive",
    ),
)

TALLIES: tuple[Tally, ...] = (
    Tally(
        "metrics_hook_errors_total",
        "degraded",
        "hook plugin {plugin} failed {value} times at {hook}; the server's log says why",
    ),
    Tally(
        "metrics_hook_dropped_events_total",
        "degraded",
        "hook plugin {plugin} is too slow for {hook} and lost {value} events",
    ),
    Tally(
        "metrics_held_series_total",
        "degraded",
        "hook plugin {plugin} gives its family {family} too many values of the label {label}: it "
        "is held at 2,000 series, and {value} calls went to the one named overflow",
    ),
    Tally(
        "metrics_spans_dropped_total",
        "degraded",
        "{value} spans of requests' traces were lost ({reason}); the server's log says what the "
        "collector answered",
    ),
    Tally(
        "metrics_internal_errors_total",
        "degraded",
        "{value} internal errors of the plugin in {place}; the server's log has the first one's "
        "traceback",
    ),
    Tally(
        "metrics_dropped_events_total",
        "degraded",
        "{value} events of the stage engines' processes were lost before they got to the server",
        where={"reason": ("lost", "queue_full", "unsendable")},
    ),
    Tally(
        "metrics_dropped_events_total",
        "degraded",
        "the server could not listen for the stage engines' events (so {value} times); its log "
        "says why, and whether it listens now",
        where={"reason": ("not_listening",)},
    ),
    Tally(
        "metrics_dropped_events_total",
        "degraded",
        "{value} messages on the stage engines' channel were refused ({reason}): somebody else "
        "sends there, or another version of the plugin",
        where={"reason": ("garbage", "invalid", "oversized")},
    ),
    Tally(
        "transfer_failures_total",
        "degraded",
        "{value} payloads from stage {from_stage} to stage {to_stage} were lost: {operation} "
        "failed ({reason})",
    ),
    Tally(
        "requests_success_total",
        "note",
        "{value} requests of {model_name} failed",
        where={"finished_reason": ("error",)},
    ),
)

#: Why a sample was missing: what the request had not, or the plugin could not see.
REASONS: dict[str, tuple[Severity, str]] = {
    "empty_audio": ("note", "the request's audio had nothing in it"),
    "no_audible_sound": ("note", "the first 3 s of the audio have no sound over -40 dBFS"),
    "left_before_sound": ("note", "the listener left before there was a sound"),
    "on_device": (
        "note",
        "the audio was not in the host's memory, and is not copied from a device",
    ),
    "no_image": ("note", "the request ended without an image"),
    "no_frames": ("note", "the request ended without a video"),
    "never_received": ("note", "nobody took the payload, as when the client hung up"),
    "other_host": ("note", "sender and receiver are on different hosts, whose clocks differ"),
    "unknown_start": (
        "note",
        "the scheduler's report of a start was lost, or came from a host with another clock",
    ),
    "unknown_end": ("note", "the scheduler's report of an end was lost, or came from another host"),
    "unknown_input": ("note", "no payload was seen to arrive at a stage that others feed"),
    "unknown_arrival": ("note", "the wall clock was set while the request was on its way"),
    "during_input": ("note", "the output began before the client had sent all of its input"),
    "deferred": ("note", "the turn waited for an earlier answer, as the session's policy has it"),
    "unknown_speech": ("note", "it was not seen when the last piece with speech in it came"),
    "unknown_cause": ("note", "the interruption was not seen before the answer ended"),
    "no_frame_rate": ("note", "neither the request nor its output names a frame rate"),
    "unknown_replica": ("degraded", "the output did not say which replica made it"),
    "no_sample_rate": ("degraded", "the output did not say its sample rate"),
    "no_generation_time": ("degraded", "the stage was not seen to begin or to finish"),
    "unknown_form": ("degraded", "the output has a form that the plugin does not know"),
    "queue_full": ("degraded", "more packets waited to be looked at than are kept"),
    "internal_error": ("degraded", "the plugin's own code failed; the log says where"),
    "unknown_edge": ("degraded", "it was not seen who sent or received the payload"),
    "unknown_sender": ("degraded", "it was not seen who sent the payload"),
    "not_seen": ("degraded", "the noise scheduler's steps were not seen"),
    "unknown_holder": ("degraded", "it was not seen which replica held the KV cache"),
    "no_tokens": ("note", "the engine did not count a stage's tokens, or of the last piece alone"),
    "no_timing": ("degraded", "the diffusion engine said no such time"),
}

#: Of one family, the first that is met is said.
TRAPS: tuple[Trap, ...] = (
    Trap(
        "unregistered_family",
        "degraded",
        "its name begins with `vllm:`; with 0.22, `vllm` is anywhere in it",
        lambda family: family.unregistered,
        "vLLM takes it from /metrics when it builds a stat logger, by its name; give it a name "
        "without vllm",
    ),
    Trap(
        "unregistered_elsewhere",
        "note",
        "`vllm` is anywhere in its name",
        lambda family: "vllm" in family.name,
        "earlier releases take each family with vllm in its name from /metrics; this one does not",
    ),
    Trap(
        "gauge_of_each_process",
        "degraded",
        "a gauge without a `multiprocess_mode`, and several API servers",
        lambda family: family.mode == "all" and family.several,
        "each API server shows a series of its own with a label pid, and those that have ended do, "
        "too; make it Gauge(..., multiprocess_mode='livesum'), or whatever adds it up",
    ),
    Trap(
        "gauge_without_mode",
        "note",
        "a gauge without a `multiprocess_mode`",
        lambda family: family.mode == "all",
        "with several API servers each would show a series of its own with a label pid; "
        "Gauge(..., multiprocess_mode='livesum') adds them up",
    ),
)
