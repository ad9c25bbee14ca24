"""From what was gathered of a request to its spans, as data: no child leaves its parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vllm_omni_metrics_plugin.exporters.otel.attributes import (
    OUTPUT_TYPES,
    about,
    at_stage,
    ended,
)
from vllm_omni_metrics_plugin.exporters.otel.story import Edge, Moment, Part, Story

#: The span of the whole request.
ROOT = "omni.request"

#: The pipeline's own name for a stage, by model and number.
StageName = Callable[[str, int], str | None]


@dataclass
class Span:
    """Times in monotonic seconds; ``parent`` and ``link`` are places in the list of all spans."""

    name: str
    began_at: float
    ended_at: float
    attributes: dict[str, Any]
    parent: int | None = None
    #: The span that this one follows from.
    link: int | None = None
    moments: list[Moment] = field(default_factory=list)
    #: What failed, if it did.
    error: str | None = None


def spans(story: Story, stage_name: StageName) -> list[Span]:
    """The whole request's first, each parent before its children."""
    made = _Tree(story, stage_name)
    for part in sorted(story.parts.values(), key=lambda part: part.submitted_at):
        made.add_part(part)
    for (from_stage, to_stage), edge in sorted(story.edges.items()):
        made.add_edge(from_stage, to_stage, edge)
    return made.spans


class _Tree:
    def __init__(self, story: Story, stage_name: StageName) -> None:
        self._story = story
        self._stage_name = stage_name
        #: By stage, the span of the request's own part there.
        self._stages: dict[int, int] = {}
        root = _root(story)
        self.spans = [root]
        root.moments = _within(root, story.moments)

    def add_part(self, part: Part) -> None:
        story, name = self._story, self._name(part.stage)
        # The last output is in the server a moment after the scheduler is done.
        over = max(filter(None, (part.ended_at, part.finished_at)), default=story.ended_at)
        attributes = {**about(story.model_name), **at_stage(part.stage, part.replica, name)}
        attributes["vllm_omni.request.id"] = part.request_id
        if part.parent_request_id is not None:
            attributes["vllm_omni.request.parent_id"] = part.parent_request_id
        if part.tokens_in is not None:
            attributes["gen_ai.usage.input_tokens"] = part.tokens_in
        if part.tokens_out is not None:
            attributes["gen_ai.usage.output_tokens"] = part.tokens_out
        if part.finish_reason is not None:
            attributes["gen_ai.response.finish_reasons"] = [part.finish_reason]
        title = f"omni.stage {part.stage if name is None else name}"
        stage = self._add(Span(title, part.submitted_at, over, attributes, parent=0))
        if part.parent_request_id is None:
            self._stages[part.stage] = stage
        made = self.spans[stage]
        if part.was_left or part.finish_reason == "error":
            made.error = "dead_replica" if part.was_left else "stage_error"
            attributes["error.type"] = made.error
        where = at_stage(part.stage, part.replica, name)
        if not part.started:
            self._add(Span("queue", made.began_at, made.ended_at, dict(where), parent=stage))
        elif part.started_at is not None:
            if part.ready_at is not None:
                ready = min(part.ready_at, part.started_at)
                self._add(Span("queue", ready, part.started_at, dict(where), parent=stage))
            until = over if part.ended_at is None else part.ended_at
            self._add(Span("execute", part.started_at, until, dict(where), parent=stage))

    def add_edge(self, from_stage: int, to_stage: int, edge: Edge) -> None:
        times = [at for at in (edge.began_at, edge.ended_at) if at is not None]
        if not times:
            return
        name = self._name(to_stage)
        attributes = {
            **at_stage(to_stage, edge.to_replica, name),
            "vllm_omni.transfer.from_stage.id": from_stage,
            "vllm_omni.transfer.connector": edge.connector,
            "vllm_omni.transfer.payloads": edge.payloads,
            "vllm_omni.transfer.size_bytes": edge.size_bytes,
        }
        if edge.from_replica is not None:
            attributes["vllm_omni.transfer.from_stage.replica_id"] = edge.from_replica
        parent, link = self._stages.get(to_stage, 0), self._stages.get(from_stage)
        made = Span("omni.transfer", min(times), max(times), attributes, parent, link)
        self._add(made)
        made.moments = _within(made, edge.chunks)

    def _add(self, span: Span) -> int:
        """Within its parent's time, and no shorter than nothing."""
        if span.parent is not None:
            parent = self.spans[span.parent]
            span.began_at = min(max(span.began_at, parent.began_at), parent.ended_at)
            span.ended_at = min(max(span.ended_at, span.began_at), parent.ended_at)
        self.spans.append(span)
        return len(self.spans) - 1

    def _name(self, stage: int) -> str | None:
        return self._stage_name(self._story.model_name, stage)


def _root(story: Story) -> Span:
    end = story.end
    attributes = {
        **about(story.model_name),
        "vllm_omni.request.id": story.request_id,
        "vllm_omni.request.external_id": story.external_request_id,
    }
    if story.route:
        attributes["http.route"] = story.route
    kind = next((word for made, word in OUTPUT_TYPES.items() if made in story.modalities), None)
    if kind is not None:
        attributes["gen_ai.output.type"] = kind
    own = [part for part in story.parts.values() if part.parent_request_id is None]
    entry = min(own, key=lambda part: part.submitted_at, default=None)
    if entry is not None and entry.tokens_in is not None:
        attributes["gen_ai.usage.input_tokens"] = entry.tokens_in
    error = None
    if end is not None:
        attributes.update(ended(end.outcome, end.failure))
        if end.status is not None:
            attributes["http.response.status_code"] = end.status
        if end.failure is None:
            attributes["gen_ai.response.finish_reasons"] = [end.outcome]
        error = (end.failure or "other") if end.outcome == "error" else None
    until = max(story.arrived_at, story.ended_at)
    return Span(ROOT, story.arrived_at, until, attributes, error=error)


def _within(span: Span, moments: list[Moment]) -> list[Moment]:
    """In their order, and none outside of the span."""
    kept = [
        Moment(m.name, min(max(m.at, span.began_at), span.ended_at), m.attributes) for m in moments
    ]
    return sorted(kept, key=lambda moment: moment.at)
