"""The events of what moves between stages; they also come from other processes."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from vllm_omni_metrics_plugin.hooks.events.base import Event

Operation = Literal["send", "receive"]

# What comes from another process is checked against these.
Number = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
Text = Annotated[str, msgspec.Meta(max_length=512)]


class TransferSent(Event, frozen=True, kw_only=True):
    """One payload left for the next stage (``put`` of a connector returned).

    In the stage engine's process, where it is measured, the receiver is not known. In the server it
    is: there the event follows once the receiver has reported too, or never will.
    """

    #: None in a stage engine's process.
    model_name: Text | None = None
    from_stage: Number
    #: None if the sending process does not know its own number.
    from_replica: Number | None
    to_stage: Number
    #: None in a stage engine's process, and for a payload that nobody took.
    to_replica: Number | None = None
    #: What the connector calls the payload; unique while it is under way.
    key: Text
    #: The connector's class.
    connector: Text
    #: As serialized.
    size_bytes: Bytes
    #: Serializing and handing over to the connector.
    seconds: Seconds
    #: When that was done.
    sent_at: float
    #: Times are comparable between processes that name the same clock.
    clock: Text


class TransferReceived(Event, frozen=True, kw_only=True):
    """One payload arrived at a stage (``get`` of a connector returned one)."""

    model_name: Text | None = None
    from_stage: Number
    #: None in a stage engine's process, and when the sender's report was lost.
    from_replica: Number | None = None
    to_stage: Number
    #: None if the receiving process does not know its own number.
    to_replica: Number | None
    key: Text
    connector: Text
    #: As the receiving connector says it; compressing or padding ones differ from the sender's.
    size_bytes: Bytes
    #: Of the ``get`` that succeeded: receiving and decoding. Where it began before the sender was
    #: done, only what came after, in the server.
    seconds: Seconds
    #: When that was done.
    received_at: float
    #: From the sender's end to the receiver's beginning; None in a stage engine's process, when the
    #: sender's report was lost, and between hosts.
    in_flight_seconds: Seconds | None = None
    clock: Text


class TransferFailed(Event, frozen=True, kw_only=True):
    """A connector could not send or receive a payload."""

    model_name: Text | None = None
    from_stage: Number
    to_stage: Number
    #: Which of the two could not be done.
    operation: Operation
    #: Of the side that failed.
    replica: Number | None
    key: Text
    connector: Text
    #: ``refused`` when the connector said no, else the class of the exception that it raised.
    reason: Text


class EventsDropped(Event, frozen=True, kw_only=True):
    """Events of other processes did not arrive here."""

    #: ``queue_full``: the sender had too many waiting. ``lost``: gone on the way. ``garbage`` and
    #: ``oversized``: frames that were no events.
    reason: str
    #: Events; frames for ``garbage`` and ``oversized``, whose events cannot be counted.
    count: int
