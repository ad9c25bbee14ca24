"""What is gathered of a request that is traced, between its arrival and its trace.

All of it is bounded, whatever the request does: what comes beyond that is counted or left out.
Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    MediaPacket,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferReceived,
    TransferSent,
)
from vllm_omni_metrics_plugin.media.playback import Playback

#: Of each request: stages with a part in it, edges between them, moments, and of each edge chunks.
MOST_PARTS = 64
MOST_EDGES = 64
MOST_MOMENTS = 64
MOST_CHUNKS = 64


@dataclass(frozen=True)
class Moment:
    """Something that happened at one time."""

    name: str
    at: float
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Part:
    """One stage's part in the request, or in an extra request that it made."""

    request_id: str
    stage: int
    replica: int | None
    submitted_at: float
    #: The extra request's parent; None for the request itself.
    parent_request_id: str | None = None
    #: Since when the stage could have executed it; None where that is not known.
    ready_at: float | None = None
    #: Whether it began to execute, and when as far as that is known.
    started: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    finished_at: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None
    #: Its replica left before it was finished.
    was_left: bool = False


@dataclass
class Edge:
    """All payloads between two stages."""

    from_replica: int | None = None
    to_replica: int | None = None
    connector: str = ""
    began_at: float | None = None
    ended_at: float | None = None
    payloads: int = 0
    size_bytes: int = 0
    chunks: list[Moment] = field(default_factory=list)


@dataclass
class Story:
    """One request."""

    #: The SDK's span of the whole request, begun and not ended.
    root: Any
    trace_id: str
    request_id: str
    external_request_id: str
    model_name: str
    arrived_at: float
    route: str
    #: Of the player whose silences are stalls, in seconds.
    buffer_seconds: float
    #: What it asks for, and what it got, in the engine's words.
    modalities: set[str] = field(default_factory=set)
    #: By request id and stage.
    parts: dict[tuple[str, int], Part] = field(default_factory=dict)
    #: By the stages that they lead from and to.
    edges: dict[tuple[int, int], Edge] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    #: Since when its client waits, once that is known.
    waits_since: float | None = None
    #: By stage, of streamed audio.
    playing: dict[int, Playback] = field(default_factory=dict)
    end: RequestFinished | None = None
    #: When the last byte was handed over.
    ended_at: float = 0.0

    def submitted(self, event: StageSubmitted) -> bool:
        """Whether there is a place for it."""
        key = (event.request_id, event.stage)
        if key not in self.parts:
            if len(self.parts) >= MOST_PARTS:
                return False
            self.parts[key] = Part(*key, event.replica, event.submitted_at, event.parent_request_id)
        return True

    def started(self, event: StageStarted, *, needs_input: bool) -> None:
        """``needs_input``: the stage has nothing to do before its first payload."""
        part = self.parts.get((event.request_id, event.stage))
        if part is None:
            return
        part.started, part.started_at = True, event.started_at
        if not needs_input:
            part.ready_at = part.submitted_at
        elif event.input_at is not None:
            part.ready_at = max(part.submitted_at, event.input_at)

    def stage_ended(self, event: StageEnded) -> None:
        part = self.parts.get((event.request_id, event.stage))
        if part is not None:
            part.ended_at = event.ended_at

    def stage_finished(self, event: StageFinished) -> None:
        part = self.parts.get((event.request_id, event.stage))
        if part is not None:
            part.replica = event.replica
            part.finished_at = event.finished_at
            part.tokens_in, part.tokens_out = event.tokens_in, event.tokens_out
            part.finish_reason = event.finish_reason

    def replica_left(self, stage: int, replica: int) -> None:
        for part in self.parts.values():
            is_done = part.finished_at is not None and part.finish_reason != "error"
            if (part.stage, part.replica) == (stage, replica) and not is_done:
                part.was_left = True

    def packet(self, event: MediaPacket) -> None:
        self.modalities.add(event.modality)
        if self.waits_since is None and event.since_arrival_seconds is not None:
            self.waits_since = event.left_at - event.since_arrival_seconds
        if event.index == 0:
            self.note("first_packet", event.left_at, **_stage(event.stage))
        if not event.streamed or not event.sample_rate:
            return
        playing = self.playing.get(event.stage)
        if playing is None:
            playing = self.playing[event.stage] = Playback((self.buffer_seconds,))
        before = playing.players[0].stall_seconds
        playing.packet(event.left_at, event.samples / event.sample_rate)
        self._note_stall(event.stage, before, event.left_at)

    def stream_finished(self, event: StreamFinished) -> None:
        # Of several requests of one utterance, the arrival that it counts from is another's.
        audible = event.first_audible_seconds
        if event.requests == 1 and audible is not None and self.waits_since is not None:
            self.note("first_audible", self.waits_since + audible, **_stage(event.stage))

    def sent(self, event: TransferSent) -> None:
        edge = self._edge(event.from_stage, event.to_stage)
        if edge is not None:
            edge.from_replica, edge.connector = event.from_replica, event.connector
            began = event.sent_at - event.duration_seconds
            edge.began_at = began if edge.began_at is None else min(began, edge.began_at)

    def received(self, event: TransferReceived) -> None:
        edge = self._edge(event.from_stage, event.to_stage)
        if edge is None:
            return
        edge.to_replica, edge.connector = event.to_replica, event.connector
        edge.payloads += 1
        edge.size_bytes += event.size_bytes
        at = event.received_at
        edge.ended_at = at if edge.ended_at is None else max(at, edge.ended_at)
        if len(edge.chunks) < MOST_CHUNKS:
            size = {"vllm_omni.transfer.size_bytes": event.size_bytes}
            edge.chunks.append(Moment("chunk", at, size))

    def finished(self, event: RequestFinished, at: float) -> None:
        """The request is over, ``at`` now; stragglers may follow."""
        self.end, self.ended_at = event, at
        for stage, playing in self.playing.items():
            before = playing.players[0].stall_seconds
            if event.outcome == "abort":
                playing.leave(at)
            elif event.outcome in ("error", "rejected"):
                playing.fail(at)
            self._note_stall(stage, before, at)
        if event.outcome == "abort":
            self.note("abort", at, **{"error.type": event.failure or "other"})

    def note(self, name: str, at: float, **attributes: Any) -> None:
        if len(self.moments) < MOST_MOMENTS:
            self.moments.append(Moment(name, at, attributes))

    def _note_stall(self, stage: int, before: float, until: float) -> None:
        seconds = self.playing[stage].players[0].stall_seconds - before
        if seconds > 0:
            length = {"vllm_omni.stall.duration_seconds": seconds}
            self.note("stall", until - seconds, **_stage(stage), **length)

    def _edge(self, from_stage: int, to_stage: int) -> Edge | None:
        key = (from_stage, to_stage)
        edge = self.edges.get(key)
        if edge is None and len(self.edges) < MOST_EDGES:
            edge = self.edges[key] = Edge()
        return edge


def _stage(stage: int) -> dict[str, Any]:
    return {"vllm_omni.stage.id": stage}
