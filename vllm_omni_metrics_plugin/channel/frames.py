"""What goes over the channel: frames of typed events, as MessagePack."""

from __future__ import annotations

import msgspec

from vllm_omni_metrics_plugin.hooks.events.transfers import (
    Bytes,
    Text,
    TransferFailed,
    TransferReceived,
    TransferSent,
)

WireEvent = TransferSent | TransferReceived | TransferFailed

#: Events in one frame.
MOST_EVENTS = 128
#: Far above what so many events need.
MOST_BYTES = 1 << 20


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Some events of one sender."""

    #: Tells this sender from all others there ever were.
    sender: Text
    #: How many events the sender had sent before these.
    first: Bytes
    #: How many it has dropped so far.
    dropped: Bytes
    events: list[WireEvent]


class FrameError(ValueError):
    """The bytes are no frame; the message says why."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    return _encoder.encode(frame)


def decode(data: bytes) -> Frame:
    """Raises :class:`FrameError`."""
    try:
        frame = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    if len(frame.events) > MOST_EVENTS:
        raise FrameError(f"{len(frame.events)} events in one frame")
    return frame
