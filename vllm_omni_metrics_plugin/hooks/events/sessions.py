"""The events of sessions of speech in and out at once, and of the turns in them.

``turn_id`` is the engine's response id. A turn is a request, too: the events of requests, stages
and audio carry it by its ``request_id``.
"""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks.events.base import Event

#: ``speech``: the server heard the end of the user's speech. ``commit``: the client said that this
#: was all. ``request``: the client asked for an answer, to a text for example. ``model``: nobody
#: did; the model began by itself.
Origin = Literal["speech", "commit", "request", "model"]


class SessionOpened(Event, frozen=True, kw_only=True):
    """A client opened a session (``DuplexSessionManager``), and is attached to it."""

    session_id: str
    model_name: str
    opened_at: float


class SessionRefused(Event, frozen=True, kw_only=True):
    """A session was not opened."""

    model_name: str
    #: The engine's word: ``resource_exhausted`` when there are as many as there may be.
    code: str


class SessionAttachment(Event, frozen=True, kw_only=True):
    """The client of an open session is gone, or is back."""

    session_id: str
    model_name: str
    #: False from the moment when its connection is lost; true when it resumes the session.
    attached: bool


class SessionClosed(Event, frozen=True, kw_only=True):
    """A session is over; exactly once per :class:`SessionOpened`, after its last turn's end."""

    session_id: str
    model_name: str
    #: ``client``: it was asked to close. ``disconnect``: the client did not come back in time.
    #: ``idle``: nothing happened for too long. ``error``: a stage or the engine failed.
    #: ``shutdown``: the server ends. ``other``.
    reason: str
    #: From its opening.
    duration_seconds: float
    #: Turns that began in it.
    turns: int
    #: Its client was there.
    attached: bool


class VoiceDetection(Event, frozen=True, kw_only=True):
    """The server begins to listen for speech in a session (``server_vad``), or listens no more.

    Whoever was listened to is listened to no more before its :class:`SessionClosed`.
    """

    session_id: str
    model_name: str
    #: False when the client has switched it off, the detector cannot be had, or the session ends.
    active: bool


class VoiceScored(Event, frozen=True, kw_only=True):
    """The detector has listened to one piece of sound that the client sent.

    It listens in frames of 32 ms, so to what is left over with the next piece; where no frame is
    full, it has not listened.
    """

    session_id: str
    model_name: str
    #: How long each frame took to score, in seconds, without waiting for a thread.
    inference_seconds: tuple[float, ...]
    #: How long it took to get the model, which the first piece in a session waits for; None for
    #: any other.
    load_seconds: float | None
    #: Of speech, from 0 to 1, in the frame with the most of it.
    probability: float
    #: Somebody speaks at the end of the piece.
    speaking: bool


class VoiceFailed(Event, frozen=True, kw_only=True):
    """The server wanted to listen for speech, and could not."""

    session_id: str
    model_name: str
    #: ``unavailable``: the detector cannot be had, and the session goes on without. ``settings``:
    #: what the client wants of the detector is refused. ``bad_audio``: a piece cannot be read.
    #: ``failed``: the engine raised while it listened to a piece.
    reason: str


class TurnStarted(Event, frozen=True, kw_only=True):
    """The engine begins to answer (``ResponseCreated``)."""

    session_id: str
    turn_id: str
    #: What the turn is as a request; its :class:`RequestArrived` comes before this.
    request_id: str
    model_name: str
    origin: Origin
    started_at: float
    #: The user's speech ended while an earlier answer went on, which the policy of the session let
    #: go on; so the turn waited for it.
    deferred: bool = False


class TurnFinished(Event, frozen=True, kw_only=True):
    """The engine answers no more; exactly once per :class:`TurnStarted`."""

    session_id: str
    turn_id: str
    #: Its :class:`RequestFinished` comes before this.
    request_id: str
    model_name: str
    #: ``stop``: all of it was generated. ``length``: the same, but a token limit cut a stage short.
    #: ``barge_in``: the user interrupted it, by speaking or by the client's word. ``cancel``: the
    #: client cancelled it. ``close``: the client closed the session. ``abort``: the session ended
    #: as its client was gone or idle, or the server ends. ``error``: it failed.
    outcome: str
    origin: Origin
    #: From the end of the user's speech, as the server heard it, or from the client's word, to the
    #: first audio; None without audio, if it was ``deferred``, and if the model began by itself.
    latency_seconds: float | None
    #: The same from the arrival of the last piece with speech in it: what the user waits. None as
    #: well where nobody spoke, or nothing is known of that piece.
    heard_latency_seconds: float | None
    #: From the arrival of that piece until the server heard the end; None unless it did.
    endpoint_delay_seconds: float | None
    #: From its start to its end.
    duration_seconds: float
    #: Audio samples per channel that left for the client.
    samples: int
    deferred: bool
    #: Its client was gone when it ended.
    detached: bool


class TurnPlayed(Event, frozen=True, kw_only=True):
    """What became of a turn's audio; once per turn that had some, when that is certain.

    That is when the client has acknowledged all of it, when the session ends, or some turns later.
    """

    session_id: str
    turn_id: str
    model_name: str
    #: The stage that made it.
    stage: int
    replica: int | None
    #: Samples per channel that the client said it played.
    acknowledged: int
    #: Those that it did not play, as the turn was interrupted or its audio was cleared.
    discarded: int
    #: Those of which nobody knows: all, if the client acknowledged nothing.
    unknown: int
    #: The turn ended while its client was gone, who never came back.
    unheard: bool


class BargeIn(Event, frozen=True, kw_only=True):
    """The user interrupted an answer, and the server has reacted."""

    session_id: str
    turn_id: str
    model_name: str
    #: ``speech``: the server heard it. ``client``: the client said so.
    cause: Literal["speech", "client"]
    #: From there until the client was told that the answer ends; None where it is not known.
    reaction_seconds: float | None
    #: False when all was generated, and only its playback was interrupted.
    generating: bool
