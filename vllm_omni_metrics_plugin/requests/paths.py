"""What is noted of one open request so that its critical paths are known at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks import PathSegment
from vllm_omni_metrics_plugin.requests.critical_path import critical_path
from vllm_omni_metrics_plugin.requests.inputs import Inputs
from vllm_omni_metrics_plugin.requests.work import StageWork


class _FirstPacket(NamedTuple):
    """The first media that left for the client; times in monotonic seconds."""

    #: When its client began to wait.
    since: float
    left_at: float
    stage: int
    #: When it reached the server.
    output_at: float | None
    #: The stage had given nothing before it, empty outputs included.
    is_first_output: bool


class Paths:
    """What the stages were sent by others, and when the first packet left."""

    __slots__ = ("_first_packet", "inputs")

    def __init__(self) -> None:
        #: By the stage that received it.
        self.inputs: dict[int, Inputs] = {}
        self._first_packet: _FirstPacket | None = None

    def inputs_of(self, stage: int) -> Inputs:
        """What the stage was sent; it may not have been given the request yet."""
        inputs = self.inputs.get(stage)
        if inputs is None:
            inputs = self.inputs[stage] = Inputs()
        return inputs

    def packet_leaves(
        self, stage: int, work: StageWork | None, at: float, waited: float | None
    ) -> None:
        """A packet leaves, ``waited`` seconds after its client began to wait; one is the first."""
        if self._first_packet is None and waited is not None:
            output_at = work.output_at if work is not None else None
            is_first = work is not None and not work.gave_nothing
            self._first_packet = _FirstPacket(at - waited, at, stage, output_at, is_first)

    def to_first_packet(self, stages: Mapping[int, StageWork]) -> tuple[PathSegment, ...]:
        """``()`` if there was none, or nobody knows since when its client waited."""
        if self._first_packet is None:
            return ()
        first = self._first_packet
        return critical_path(
            *(first.since, first.left_at, first.stage, first.output_at, stages, self.inputs),
            is_first_output=first.is_first_output,
        )

    def to_end(
        self, at: float, waited: float | None, stages: Mapping[int, StageWork]
    ) -> tuple[PathSegment, ...]:
        """``()`` if no stage had the request, or nobody knows since when its client waited."""
        if waited is None or not stages:
            return ()
        ended = [
            (work.ended_at, stage) for stage, work in stages.items() if work.ended_at is not None
        ]
        ended_at, stage = max(ended) if ended else (None, max(stages))
        return critical_path(at - waited, at, stage, ended_at, stages, self.inputs)
