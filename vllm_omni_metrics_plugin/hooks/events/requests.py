"""The events of a request and of its way through the stages."""

from __future__ import annotations

from typing import Literal

import msgspec

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.events.diffusion import DiffusionWork
from vllm_omni_metrics_plugin.hooks.events.media import (
    AudioFinished,
    ImageFinished,
    StreamFinished,
    VideoFinished,
)

Verdict = Literal["good", "bad", "excluded", "unknown"]
Transport = Literal["http", "websocket", "job"]


class RequestArrived(Event, frozen=True, kw_only=True):
    """The client-facing engine took a request in (``AsyncOmni.generate`` began)."""

    request_id: str
    #: The id under which the endpoint and the client know the request; not always unique.
    external_request_id: str
    model_name: str
    #: Includes what the endpoint did before it called the engine, where the endpoint says so. It
    #: does in the time of the wall clock; if that was set meanwhile, the arrival is not known: this
    #: is when it called the engine, and every duration from the arrival is None.
    arrived_at: float
    #: What it asks the engine to make, in the engine's words: ``text``, ``audio``, ``image``,
    #: ``video`` and others. Empty if the engine does not say, and for prompts of a script.
    modalities: tuple[str, ...] = ()
    #: The template of the route that its client called, ``/v1/audio/speech`` for example; of a job,
    #: the one that ordered it. None for prompts of a script, and where no route is known.
    endpoint: str | None = None
    #: What its client is answered over: ``http``, ``websocket``, or ``job`` where it was answered
    #: with the number of one. None for prompts of a script.
    transport: Transport | None = None
    #: The trace that it is recorded in, as 32 hexadecimal digits; None if it is in none.
    trace_id: str | None = None
    #: Name, in lower case, and value of each header that the client sent and
    #: ``VLLM_OMNI_METRICS_HEADERS`` names; ``dict(event.headers).get("x-team")`` finds one. Empty
    #: for scripts.
    headers: tuple[tuple[str, str], ...] = ()


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """How much a request asks of a stage, as it says itself; None where it does not."""

    #: The most tokens that it may have, of a stage that makes tokens.
    tokens: int | None = None
    #: Denoising steps, of a diffusion stage.
    steps: int | None = None
    #: Width x height x frames x images, of a diffusion stage.
    pixels: int | None = None


class StageSubmitted(Event, frozen=True, kw_only=True):
    """A stage replica was given the request (``StagePool.submit_initial``)."""

    request_id: str
    stage: int
    replica: int
    submitted_at: float
    #: Set on the extra requests that guided generation makes: the request they belong to.
    parent_request_id: str | None = None
    #: None for what is no open request of ``AsyncOmni.generate``, as those extra ones.
    model_name: str | None = None
    #: The first submit of an open request: from now on it runs, until it is finished.
    first: bool = False
    #: With ``first``, how much the request asks of each stage that it comes to, in their order: the
    #: most ``tokens``, or ``steps`` and ``pixels``, each None where it does not say.
    demands: tuple[Demand, ...] = ()


class StageStarted(Event, frozen=True, kw_only=True):
    """A stage replica's scheduler admitted the request for the first time (``schedule``).

    In the server only, once for each stage that executes the request, however often it is preempted
    and resumed there. Where the scheduler's report is late it may come after the stage's finish,
    which proves that it started.
    """

    request_id: str
    stage: int
    replica: int
    #: None if the report was lost, or came from a host with another clock.
    started_at: float | None
    #: None for the extra requests of guided generation.
    submitted_at: float | None = None
    #: When the stage received its first payload, as far as one was seen before the start; a stage
    #: that is fed by chunks has nothing to execute before it.
    input_at: float | None = None
    #: Set on the extra requests that guided generation makes: the request they belong to.
    parent_request_id: str | None = None
    #: None if it is not known whose the request is.
    model_name: str | None = None


class StageEnded(Event, frozen=True, kw_only=True):
    """A stage replica executes the request no more; once per :class:`StageStarted` of a request.

    That is the stage's last output. A diffusion engine goes on with an aborted request until its
    batch is over, so there it is the scheduler's own end, also after :class:`RequestFinished`.
    Extra requests of guided generation have none.
    """

    request_id: str
    stage: int
    replica: int
    #: None if the report was lost, or came from a host with another clock.
    ended_at: float | None
    #: As :class:`StageStarted` says.
    started_at: float | None
    model_name: str


class StageFinished(Event, frozen=True, kw_only=True):
    """A stage replica finished the request (``StagePool.build_stage_metrics``)."""

    request_id: str
    stage: int
    replica: int
    finished_at: float
    #: Submit to finish. With chunked streaming a later stage is submitted early, so this includes
    #: its wait for the first chunk. Of a streamed input, from its end if that comes after the
    #: submit; None if the input goes on.
    generation_seconds: float | None
    #: Prompt tokens; 0 for every stage but the first. None, as are those that it made, of a
    #: streamed input that it worked on in several pieces: the engine may count the last one alone.
    tokens_in: int | None
    #: Tokens that it made.
    tokens_out: int | None
    #: The engine's word for this stage: ``stop``, ``length`` ...; None where it gives none.
    finish_reason: str | None
    #: None for a request that did not come through ``AsyncOmni.generate``.
    model_name: str | None = None
    #: None for a stage without a diffusion engine.
    diffusion: DiffusionWork | None = None


Segment = Literal["frontend", "queue", "execute", "transfer", "delivery", "unknown"]


class PathSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a request's critical path; it begins where the one before it ended."""

    #: ``frontend``: arrival to the first submit to a stage. ``queue`` and ``execute``: in a stage.
    #: ``transfer``: to the stage. ``delivery``: from the stage's output to the client's response.
    #: ``unknown``: the plugin does not know.
    segment: Segment
    #: The stage that it happened in, or that it brought the request to.
    stage: int
    #: Monotonic seconds.
    began_at: float
    #: Monotonic seconds.
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended_at - self.began_at


class RequestJudged(Event, frozen=True, kw_only=True):
    """A request has ended, and whether it met one of the operator's objectives is certain."""

    request_id: str
    model_name: str
    #: The name of the objective in the file that ``VLLM_OMNI_METRICS_SLO`` names.
    objective: str
    #: ``good``: the natural end, each limit measured and kept. ``bad``: something is ``broken``.
    #: ``excluded``: it left, or was answered with HTTP 4xx, and had kept every limit so far.
    #: ``unknown``: the natural end, with a limit that could not be measured.
    verdict: Verdict
    #: The limits that measured values broke, by the stems of their families; ``error``;
    #: ``left_stalled``: the client left in a silence; ``left_late``: it left without what it waited
    #: for, when the limit of that was past. Empty unless it is bad.
    broken: tuple[str, ...]


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage did for a request, as far as it is known at the request's end."""

    stage: int
    #: None if none took it.
    replica: int | None
    #: When it was given it first, in monotonic seconds.
    submitted_at: float
    #: When it began to execute it, as :class:`StageStarted` says.
    started_at: float | None = None
    #: When it executed it no more, as :class:`StageEnded` says; None also while it goes on.
    ended_at: float | None = None
    #: Submit to start; of a stage that others feed, from the arrival of its first payload.
    queue_seconds: float | None = None
    #: Start to end.
    execute_seconds: float | None = None
    #: As :class:`StageFinished` says, as are the next four; None if the stage did not finish it.
    generation_seconds: float | None = None
    #: Prompt tokens; 0 for every stage but the first.
    tokens_in: int | None = None
    #: Tokens that it made.
    tokens_out: int | None = None
    #: The engine's word.
    finish_reason: str | None = None
    diffusion: DiffusionWork | None = None


class RequestFinished(Event, frozen=True, kw_only=True):
    """The end of a request, exactly once per :class:`RequestArrived`, whatever happened.

    The last of its events but for three: a diffusion stage that goes on with it has its
    :class:`StageEnded` later, a stage whose start was reported late both that and its
    :class:`StageStarted`, and an utterance of several requests its :class:`StreamFinished`. So it
    has all that they said, and nobody has to keep it. Where a stream's last packets wait to be
    looked at for its first sound, it comes from the thread that does.
    """

    request_id: str
    model_name: str
    #: What the client was answered. ``stop``: all of it, to the natural end. ``length``: the same,
    #: but a token limit cut a stage short, in any piece of a streamed input. ``abort``: it left
    #: before the last byte, or cancelled. ``error``: a stage or the endpoint failed. ``rejected``:
    #: HTTP 4xx, even if something was generated. Other values are the engine's own finish reasons.
    outcome: str
    #: Arrival, or the end of a streamed input, to the last output of the engine; encoding the
    #: response comes after it. None where the arrival is not known, and if the input goes on.
    end_to_end_seconds: float | None
    #: Arrival, or the first piece of a streamed input, to the first start in any stage; None also
    #: when no stage started it, or if it is not known by now when one did.
    queue_seconds: float | None
    #: Whether it ran: a :class:`StageSubmitted` with ``first`` belongs to it.
    dispatched: bool = False
    #: Whether any stage executed it.
    started: bool = False
    #: The client streams its input and has not ended it.
    during_input: bool = False
    #: Why it did not run to its natural end; None if it did. ``client_disconnect``: the client
    #: left. ``client_abort``: it was asked to stop. ``invalid_request``: the engine or the endpoint
    #: refused what was asked. ``queue_full``, ``timeout``. ``dead_replica``: a stage has died.
    #: ``stage_error``: a stage failed. ``endpoint_error``: the endpoint failed, an encoder for
    #: example. ``no_output``: the engine ended without a word. ``other``.
    failure: str | None = None
    #: As :class:`RequestArrived` says.
    trace_id: str | None = None
    #: What its time went to, from the arrival, or the end of a streamed input, to the first media
    #: packet that left for the client; () if none did, or the beginning is not known.
    first_packet_path: tuple[PathSegment, ...] = ()
    #: The same up to the last output, so its sum is ``end_to_end_seconds``; () if that is None, and
    #: for what did not run to its natural end.
    critical_path: tuple[PathSegment, ...] = ()
    #: As :class:`RequestArrived` says.
    external_request_id: str | None = None
    #: As :class:`RequestArrived` says.
    endpoint: str | None = None
    #: As :class:`RequestArrived` says.
    transport: Transport | None = None
    #: Monotonic seconds; None where the arrival is not known.
    arrived_at: float | None = None
    #: The HTTP status that its client was sent; None where none was, as on a websocket, for a job,
    #: and if it left before.
    status: int | None = None
    #: Those that were given it, in their order.
    stages: tuple[StageSummary, ...] = ()
    #: Packets of audio that left for the client, empty ones not counted, whatever the outcome.
    packets: int | None = None
    #: One for each stage that made some, as it was told: so none of a request that was cut short
    #: (``abort``, ``error``, ``rejected``), whatever had been made by then.
    audio: tuple[AudioFinished, ...] = ()
    #: The same of images.
    images: tuple[ImageFinished, ...] = ()
    #: The same of videos.
    videos: tuple[VideoFinished, ...] = ()
    #: What its listener heard, also of one that was cut short. Empty for a part of an utterance of
    #: ``/v1/audio/speech/stream``, whose stream ends when all of its requests have ended.
    streams: tuple[StreamFinished, ...] = ()
    #: One for each of the operator's objectives that is about it.
    verdicts: tuple[RequestJudged, ...] = ()
    #: As :class:`RequestArrived` says.
    headers: tuple[tuple[str, str], ...] = ()
