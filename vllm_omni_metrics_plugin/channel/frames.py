"""What goes over the channel: frames of typed halves of hops and of executions, as MessagePack.

A process with a stage in it sees one end of a hop: what its connector put, or got. The server joins
the halves (:mod:`~vllm_omni_metrics_plugin.channel.hops`); nobody else sees them. The schedulers
say when they begin and end to execute a request.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from vllm_omni_metrics_plugin.hooks.events.transfers import Operation

# What comes from another process is checked against these.
Number = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
Text = Annotated[str, msgspec.Meta(max_length=512)]


class SentHalf(msgspec.Struct, frozen=True, kw_only=True, tag="sent"):
    """``put`` of a connector returned in this process."""

    from_stage: Number
    #: None if this process does not know its own number.
    from_replica: Number | None
    to_stage: Number
    #: What the connector calls the payload; unique while it is under way.
    key: Text
    #: The connector's class.
    connector: Text
    #: As serialized.
    size_bytes: Count
    #: Serializing and handing over to the connector.
    duration_seconds: Seconds
    #: When that was done, in monotonic seconds.
    sent_at: float
    #: Times are comparable between processes that name the same clock.
    clock: Text


class ReceivedHalf(msgspec.Struct, frozen=True, kw_only=True, tag="received"):
    """``get`` of a connector returned a payload in this process."""

    from_stage: Number
    to_stage: Number
    #: None if this process does not know its own number.
    to_replica: Number | None
    key: Text
    connector: Text
    #: As the receiving connector says it; compressing or padding ones differ from the sender's.
    size_bytes: Count
    #: Of the ``get`` that succeeded: receiving and decoding.
    duration_seconds: Seconds
    #: When that was done, in monotonic seconds.
    received_at: float
    clock: Text


class FailedHalf(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A connector of this process could not send or receive a payload; it may try again."""

    from_stage: Number
    to_stage: Number
    #: Which of the two could not be done.
    operation: Operation
    #: This process's own number.
    replica: Number | None
    key: Text
    connector: Text
    #: ``refused`` when the connector said no, else the class of the exception that it raised.
    reason: Text


class StartedRecord(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A scheduler of this process admitted a request for the first time."""

    request_id: Text
    stage: Number
    #: None if this process does not know its own number.
    replica: Number | None
    #: In monotonic seconds.
    started_at: float
    clock: Text
    #: Whether an :class:`EndedRecord` will follow; else the stage's last output is the end.
    tells_end: bool = False
    #: How many others the scheduler was executing already; None if that is not said.
    others: Count | None = None


class EndedRecord(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """A scheduler of this process executes a request no more."""

    request_id: Text
    stage: Number
    #: In monotonic seconds.
    ended_at: float
    clock: Text


Half = SentHalf | ReceivedHalf | FailedHalf
WireEvent = Half | StartedRecord | EndedRecord

#: Events in one frame.
MOST_EVENTS = 128
#: Far above what so many events need.
MOST_BYTES = 1 << 20


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Some events of one sender."""

    #: Tells this sender from all others there ever were.
    sender: Text
    #: How many events the sender had sent before these.
    first: Count
    #: How many it has dropped so far.
    dropped: Count
    events: list[WireEvent]
    #: The internal errors of its process so far, by place.
    errors: dict[Text, Count] = {}
    #: How many events it could not put into a frame so far.
    unsendable: Count = 0


class _RawFrame(msgspec.Struct, frozen=True, array_like=True):
    """A :class:`Frame` of which the events are not looked at yet."""

    sender: Text
    first: Count
    dropped: Count
    events: list[msgspec.Raw]
    errors: dict[Text, Count] = {}
    unsendable: Count = 0


class FrameError(ValueError):
    """The bytes are no frame; the message says why."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)
_raw_decoder = msgspec.msgpack.Decoder(_RawFrame)
_event_decoder: msgspec.msgpack.Decoder[WireEvent] = msgspec.msgpack.Decoder(WireEvent)
_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(frame: Frame) -> bytes:
    """Raises whatever an event's value that is not of its type makes it raise."""
    return _encoder.encode(frame)


def can_be_sent(event: WireEvent) -> bool:
    """Whether the event's values have a form on the wire."""
    try:
        _encoder.encode(event)
    except Exception:  # by the value: TypeError, OverflowError, UnicodeEncodeError
        return False
    return True


def decode(data: bytes) -> tuple[Frame, int]:
    """The frame, and how many of its events are none and were left out.

    Raises :class:`FrameError` where all of it is none.
    """
    try:
        frame = _decoder.decode(data)
    except _ERRORS:
        return _decode_one_by_one(data)
    return _checked(frame, len(frame.events)), 0


def _decode_one_by_one(data: bytes) -> tuple[Frame, int]:
    try:
        raw = _raw_decoder.decode(data)
    except _ERRORS as error:
        raise FrameError(str(error)) from None
    events = []
    for event in raw.events:
        try:
            events.append(_event_decoder.decode(event))
        except _ERRORS:
            continue
    frame = Frame(raw.sender, raw.first, raw.dropped, events, raw.errors, raw.unsendable)
    return _checked(frame, len(raw.events)), len(raw.events) - len(events)


def _checked(frame: Frame, events: int) -> Frame:
    if events > MOST_EVENTS:
        raise FrameError(f"{events} events in one frame")
    return frame
