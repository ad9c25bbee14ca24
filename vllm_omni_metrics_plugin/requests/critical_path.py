"""Where the time of one request went: the way back from what its client got to its arrival.

Each stretch of the time belongs to what the next one waited for. In a stage that is the last
payload that had arrived by then; before it the payload was on its way, and before that the stage
that sent it was at work. The segments touch, so their sum is the client's time whatever is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks import PathSegment, Segment
from vllm_omni_metrics_plugin.requests.inputs import Inputs, Payload
from vllm_omni_metrics_plugin.requests.work import StageWork

#: Far more hops than any pipeline has stages.
_MOST_HOPS = 64


class _Arrival(NamedTuple):
    """What a stage had to have before it could go on."""

    at: float
    from_stage: int
    #: None if only the receiver's end is known.
    sent_at: float | None


class _Walk:
    """Segments from the end to the beginning; each begins where the one after it was cut."""

    __slots__ = ("at", "segments", "since")

    def __init__(self, since: float, until: float) -> None:
        self.since = since
        self.at = until
        self.segments: list[PathSegment] = []

    def back_to(self, moment: float, segment: Segment, stage: int) -> None:
        """What came last, from ``moment`` on, is this segment."""
        began = max(moment, self.since)
        if began < self.at:
            self.segments.append(
                PathSegment(segment=segment, stage=stage, began_at=began, ended_at=self.at)
            )
            self.at = began


def critical_path(
    since: float,
    until: float,
    stage: int,
    output_at: float | None,
    stages: Mapping[int, StageWork],
    inputs: Mapping[int, Inputs],
    *,
    is_first_output: bool = False,
) -> tuple[PathSegment, ...]:
    """The segments between two moments of a request, the first one first, without gaps.

    ``stage`` gave what the client got at ``until``, and had it ready at ``output_at``. Its first
    output is made of what had arrived when it started, whatever arrives meanwhile.
    """
    walk = _Walk(since, until)
    if output_at is not None:
        walk.back_to(output_at, "delivery", stage)
    entry = min(stages, key=lambda number: stages[number].submitted_at, default=None)
    hops = 0
    while walk.at > since and hops < _MOST_HOPS:
        hops += 1
        work = stages.get(stage)
        if work is None:
            break
        payload = _payload(inputs.get(stage), work, walk.at, is_first_output and hops == 1)
        if payload is not None and _was_fetched_late(work, payload):
            _fetch(walk, stage, payload)
            continue
        arrival = _last_arrival(stage, work, payload, None if stage == entry else stages)
        if arrival is None:
            if stage == entry:
                _in_stage(walk, stage, work, work.submitted_at)
                walk.back_to(since, "frontend", stage)
            elif work.started_at is not None:
                walk.back_to(work.started_at, "execute", stage)
            break
        _in_stage(walk, stage, work, arrival.at)
        if arrival.sent_at is None:
            break
        walk.back_to(arrival.sent_at, "transfer", stage)
        stage = arrival.from_stage
    walk.back_to(since, "unknown", stage)
    walk.segments.reverse()
    return tuple(walk.segments)


def _payload(
    inputs: Inputs | None, work: StageWork, until: float, is_first_output: bool
) -> Payload | None:
    """What the stage received last before the moment when it went on."""
    if inputs is None:
        return None
    at_start = None
    if is_first_output and not work.tells_end and work.started_at is not None:
        at_start = inputs.latest(min(until, work.started_at))
    return at_start or inputs.latest(until)


def _in_stage(walk: _Walk, stage: int, work: StageWork, ready_at: float) -> None:
    """It could go on at ``ready_at``, and did once it had started."""
    if work.started_at is None:
        walk.back_to(ready_at, "unknown", stage)
    else:
        walk.back_to(max(ready_at, work.started_at), "execute", stage)
        walk.back_to(ready_at, "queue", stage)


def _was_fetched_late(work: StageWork, payload: Payload) -> bool:
    """A diffusion engine begins without its payloads, and calls for them when it needs them.

    One that was there by then has delayed nothing. Other stages call all the time.
    """
    return (
        work.tells_end
        and work.started_at is not None
        and payload.received_at is not None
        and payload.asked_at is not None
        and payload.received_at > payload.asked_at
        and payload.asked_at > max(work.started_at, payload.sent_at or work.started_at)
    )


def _fetch(walk: _Walk, stage: int, payload: Payload) -> None:
    if payload.received_at is not None and payload.asked_at is not None:
        walk.back_to(payload.received_at, "execute", stage)
        walk.back_to(payload.asked_at, "transfer", stage)


def _last_arrival(
    stage: int, work: StageWork, payload: Payload | None, stages: Mapping[int, StageWork] | None
) -> _Arrival | None:
    """The later of the last payload and of what the orchestrator forwarded with the submit."""
    arrival = None
    if payload is not None and payload.received_at is not None:
        arrival = _Arrival(payload.received_at, payload.from_stage, payload.sent_at)
    if stages is None or (arrival is not None and arrival.at >= work.submitted_at):
        return arrival
    ended = [
        (other.ended_at, number)
        for number, other in stages.items()
        if number != stage and other.ended_at is not None and other.ended_at <= work.submitted_at
    ]
    if not ended:
        return arrival
    sent_at, from_stage = max(ended)
    return _Arrival(work.submitted_at, from_stage, sent_at)
