"""The events of what moves between stages, and of events that got lost on their way.

A transfer is measured in two processes, and neither knows the replica at the other end. These
events are called in the server only, once, when the edge is known: both ends have reported, or one
of them never will.
"""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.renamed import RenamedField

Operation = Literal["send", "receive"]


class TransferSent(Event, frozen=True, kw_only=True):
    """One payload left for the next stage (``put`` of a connector returned)."""

    #: None if the engine that sent it is not known by name.
    model_name: str | None = None
    from_stage: int
    #: None if neither the server nor the sending process knows it.
    from_replica: int | None
    to_stage: int
    #: None for a payload that nobody took, and when the receiver's report was lost.
    to_replica: int | None = None
    #: What the connector calls the payload; unique while it is under way.
    key: str
    #: The connector's class.
    connector: str
    #: As serialized.
    size_bytes: int
    #: Serializing and handing over to the connector.
    duration_seconds: float
    #: When that was done.
    sent_at: float
    #: Times are comparable between processes that name the same clock.
    clock: str
    #: Whose payload it is; None if the server does not know that, or does so no more. May be one of
    #: the extra requests that guided generation makes.
    request_id: str | None = None

    seconds = RenamedField[float]("duration_seconds")


class TransferReceived(Event, frozen=True, kw_only=True):
    """One payload arrived at a stage (``get`` of a connector returned one)."""

    #: None if the engine that received it is not known by name.
    model_name: str | None = None
    from_stage: int
    #: None when the sender's report was lost.
    from_replica: int | None = None
    to_stage: int
    #: None if neither the server nor the receiving process knows it.
    to_replica: int | None
    key: str
    connector: str
    #: As the receiving connector says it; compressing or padding ones differ from the sender's.
    size_bytes: int
    #: Of the ``get`` that succeeded: receiving and decoding. Where it began before the ``put``
    #: did, only what came after that.
    duration_seconds: float
    #: When that was done.
    received_at: float
    #: From the sender's end to the receiver's beginning; None when the sender's report was lost,
    #: and between hosts.
    in_flight_seconds: float | None = None
    clock: str
    #: As :class:`TransferSent` says.
    request_id: str | None = None

    seconds = RenamedField[float]("duration_seconds")


class TransferFailed(Event, frozen=True, kw_only=True):
    """A payload never came: a connector could not send or receive it, and tries no more."""

    #: None if the engine is not known by name.
    model_name: str | None = None
    from_stage: int
    to_stage: int
    #: Which of the two could not be done.
    operation: Operation
    #: Of the side that failed; None if it is not known.
    replica: int | None
    key: str
    connector: str
    #: ``refused`` when the connector said no, else the class of the exception that it raised. Of
    #: the last attempt; of the sending side if both failed.
    reason: str


class KvWaited(Event, frozen=True, kw_only=True):
    """A stage held a request's KV cache from its last token until the connector had taken it.

    Meanwhile the blocks of the cache serve nobody else.
    """

    request_id: str
    #: None if it is not known whose the request is.
    model_name: str | None
    stage: int
    #: None if it is not known which replica of the stage had the request.
    replica: int | None
    #: The connector's kind, as the engine's configuration names it; ``unknown`` where it does not.
    connector: str
    #: From its last token to the word of the connector, by the clock of the stage engine.
    wait_seconds: float
    #: Set on the extra requests that guided generation makes: the request they belong to.
    parent_request_id: str | None = None


class EventsDropped(Event, frozen=True, kw_only=True):
    """Events of other processes did not arrive here."""

    #: ``queue_full``: the sender had too many waiting. ``unsendable``: the sender could not send
    #: them. ``lost``: gone on the way. ``invalid``: with values that cannot be. ``garbage`` and
    #: ``oversized``: frames that were none. ``not_listening``: the server cannot listen.
    reason: str
    #: Events; frames for ``garbage`` and ``oversized``, whose events cannot be counted; 1 for
    #: ``not_listening``, each time that begins.
    count: int
