"""Events without an engine: any one by itself, and those of a whole request."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.hooks import Event, events, renamed, specs
from vllm_omni_metrics_plugin.settings import Settings

AnyEvent = TypeVar("AnyEvent", bound=Event)

#: The event class of each hook.
EVENTS: dict[str, type[Event]] = {
    name: get_type_hints(spec)["event"]
    for name, spec in vars(specs).items()
    if name.startswith("omni_")
}

#: What a field says where a test does not care, by the field's name.
_USUAL: dict[str, Any] = {
    "settings": Settings(enabled=True),
    "role": "server",
    "versions": {"vllm-omni-metrics-plugin": __version__, "vllm-omni": "0.30.0", "vllm": "0.30.0"},
    "name": "generate",
    "target": "vllm_omni.entrypoints.async_omni:AsyncOmni.generate",
    "status": "applied",
    "request_id": "request-1-0123abcd",
    "external_request_id": "request-1",
    "model_name": "tiny",
    "stage": 1,
    "stage_name": "code2wav",
    "stage_type": "llm",
    "arrived_at": 100.0,
    "submitted_at": 100.01,
    "started_at": 100.02,
    "ended_at": 101.0,
    "left_at": 100.2,
    "finished_at": 101.0,
    "since_arrival_seconds": 0.2,
    "first_packet_seconds": 0.2,
    "buffer_seconds": 0.0,
    "stalled_at": 100.7,
    "played_seconds": 0.5,
    "leading_silence_seconds": 0.05,
    "first_audible_seconds": 0.25,
    "generation_seconds": 0.99,
    "end_to_end_seconds": 1.0,
    "queue_seconds": 0.01,
    "tokens_in": 12,
    "tokens_out": 25,
    "finish_reason": "stop",
    "outcome": "stop",
    "objective": "speech is prompt",
    "verdict": "bad",
    "broken": ("audio_ttfp_seconds",),
    "modality": "audio",
    "index": 0,
    "samples": 24_000,
    "frames": 48_000,
    "sample_rate": 24_000,
    "duration_seconds": 2.0,
    "streamed": True,
    "requests": 1,
    "images": 1,
    "pixels": (1024 * 1024,),
    "unknown_form": False,
    "first_image_seconds": 0.9,
    "videos": 1,
    "frame_rate": 24.0,
    "first_video_seconds": 0.9,
    "diffusion": None,
    "from_stage": 0,
    "to_stage": 1,
    "key": "request-1-0123abcd_0_0",
    "connector": "SharedMemoryConnector",
    "size_bytes": 298,
    "sent_at": 100.1,
    "received_at": 100.11,
    "clock": "host",
    "operation": "send",
    "reason": "refused",
    "count": 1,
    "session_id": "duplex-0123abcd",
    "turn_id": "resp-duplex-0123abcd-0-4567cdef",
    "opened_at": 100.0,
    "code": "resource_exhausted",
    "attached": True,
    "turns": 3,
    "active": True,
    "inference_seconds": (0.0004, 0.0003, 0.0003),
    "load_seconds": None,
    "probability": 0.9,
    "speaking": True,
    "origin": "speech",
    "latency_seconds": 0.4,
    "heard_latency_seconds": 0.9,
    "endpoint_delay_seconds": 0.5,
    "deferred": False,
    "detached": False,
    "acknowledged": 36_000,
    "discarded": 12_000,
    "unknown": 0,
    "cause": "speech",
    "reaction_seconds": 0.3,
    "generating": True,
}
#: Where events mean different things by one name.
_USUAL_OF: dict[tuple[type[Event], str], Any] = {
    (events.AudioFinished, "samples"): 48_000,
    (events.StreamFinished, "ending"): "stalled",
    (events.StreamFinished, "underrun_seconds"): 0.4,
    (events.StreamFinished, "players"): (
        events.Playing(
            buffer_seconds=0.0,
            stalls=1,
            stall_seconds=0.4,
            longest_stall_seconds=0.4,
            first_stall_at_seconds=1.5,
            played_seconds=2.0,
        ),
    ),
    (events.TurnPlayed, "unheard"): False,
    (events.SessionClosed, "reason"): "client",
    (events.VoiceFailed, "reason"): "unavailable",
    (events.SessionClosed, "duration_seconds"): 60.0,
    (events.TransferSent, "duration_seconds"): 0.001,
    (events.TransferReceived, "duration_seconds"): 0.001,
}
#: The usual failure of requests that end so.
_FAILURES = {
    "abort": "client_disconnect",
    "error": "stage_error",
    "rejected": "invalid_request",
}
#: The usual status, where it is not 200; who left may have been sent one before.
_STATUSES = {"error": 500, "rejected": 400}
#: By type, for fields that are not in the list.
_PLAIN: dict[Any, Any] = {int: 0, float: 1.0, str: "text", bool: True}


def make_event(kind: type[AnyEvent], **fields: Any) -> AnyEvent:
    """An event of this class; fields that are not given are those of an ordinary speech request.

    Raises TypeError for a field that the event does not have, and names the new one where a field
    was renamed.
    """
    for name in fields:
        field = vars(kind).get(name)
        if isinstance(field, renamed.RenamedField):
            raise TypeError(f"{kind.__name__} has no field {name!r} any more; it is {field.new!r}")
    hints = get_type_hints(kind)
    for known in msgspec.structs.fields(kind):
        if known.name not in fields and known.required:
            fields[known.name] = _usual(kind, known.name, hints[known.name])
    return kind(**fields)


def speech_request(
    request_id: str = "request-1",
    *,
    model_name: str = "tiny",
    outcome: str = "stop",
    packets: int = 3,
    samples: int = 24_000,
    sample_rate: int = 24_000,
    arrived_at: float = 100.0,
    queue_seconds: float = 0.01,
    first_packet_seconds: float = 0.2,
    packet_seconds: float = 0.3,
    streamed: bool = True,
    replica: int = 0,
    tokens_in: int = 12,
    tokens_out: int = 25,
) -> list[Event]:
    """All events of one request to a two-stage speech model, in the order in which they happen.

    The talker is stage 0, the vocoder stage 1; ``packets`` of ``samples`` each leave, the first
    one ``first_packet_seconds`` after arrival, the others ``packet_seconds`` apart. A request whose
    ``outcome`` is abort, error or rejected is cut short: its stages and its audio never finish.
    """
    internal = f"{request_id}-0123abcd"
    submitted_at = arrived_at + queue_seconds
    same: dict[str, Any] = {"request_id": internal}
    about: dict[str, Any] = {**same, "model_name": model_name}
    client: dict[str, Any] = {
        **{"external_request_id": request_id, "arrived_at": arrived_at},
        **{"endpoint": "/v1/audio/speech", "transport": "http"},
    }
    ended = arrived_at + first_packet_seconds + packet_seconds * max(0, packets - 1)
    members = ((0, 0), (1, replica))
    story: list[Event] = [events.RequestArrived(**about, **client)]
    for stage, member in members:
        story.append(
            events.StageSubmitted(
                **about,
                stage=stage,
                replica=member,
                submitted_at=submitted_at,
                first=stage == 0,
            )
        )
    for index in range(packets):
        since = first_packet_seconds + packet_seconds * index if streamed else ended - arrived_at
        story.append(
            events.MediaPacket(
                **about,
                modality="audio",
                index=index,
                samples=samples,
                sample_rate=sample_rate,
                stage=1,
                replica=replica,
                left_at=arrived_at + since,
                since_arrival_seconds=since,
                streamed=streamed,
            )
        )
    works: list[dict[str, Any]] = [{"stage": stage, "replica": member} for stage, member in members]
    audio: tuple[events.AudioFinished, ...] = ()
    if outcome not in _FAILURES:
        for work in works:
            work |= {
                "generation_seconds": ended - submitted_at,
                "tokens_in": 0 if work["stage"] else tokens_in,
                "tokens_out": tokens_out,
                "finish_reason": "stop" if work["stage"] else outcome,
            }
            story.append(events.StageFinished(**same, **work, finished_at=ended))
        total = packets * samples
        audio = (
            events.AudioFinished(
                **about,
                stage=1,
                replica=replica,
                samples=total,
                sample_rate=sample_rate,
                duration_seconds=total / sample_rate if total else None,
                generation_seconds=ended - submitted_at,
                first_packet_seconds=first_packet_seconds if streamed and packets else None,
                streamed=streamed,
            ),
        )
        story.extend(audio)
    story.append(
        events.RequestFinished(
            **about,
            **client,
            outcome=outcome,
            end_to_end_seconds=ended - arrived_at,
            queue_seconds=queue_seconds,
            dispatched=True,
            failure=_FAILURES.get(outcome),
            status=_STATUSES.get(outcome, 200),
            stages=tuple(
                events.StageSummary(**work, submitted_at=submitted_at, ended_at=ended)
                for work in works
            ),
            packets=packets,
            audio=audio,
        )
    )
    return story


def _usual(kind: type[Event], field: str, hint: Any) -> Any:
    if (kind, field) in _USUAL_OF:
        return _USUAL_OF[kind, field]
    if field in _USUAL:
        return _USUAL[field]
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if type(None) in get_args(hint):
        return None
    plain = get_origin(hint) or hint
    return plain() if plain in (dict, list, tuple) else _PLAIN.get(plain)
