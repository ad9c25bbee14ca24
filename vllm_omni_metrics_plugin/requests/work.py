"""One stage's part in a request."""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks import DiffusionWork

#: How a stage delivers its output: new parts, the whole so far each time, or once at the end.
Delivery = Literal["delta", "cumulative", "final"]


class StageWork:
    """What a stage was asked to do for a request, and what it did."""

    __slots__ = (
        "announced",
        "delivery",
        "diffusion",
        "ended",
        "ended_at",
        "finish_reason",
        "gave_output",
        "generation_seconds",
        "input_at",
        "replica",
        "started",
        "started_at",
        "submitted_at",
        "tells_end",
    )

    def __init__(self, submitted_at: float, delivery: Delivery | None) -> None:
        self.submitted_at = submitted_at
        self.delivery = delivery
        self.replica: int | None = None
        self.generation_seconds: float | None = None
        self.finish_reason: str | None = None
        self.diffusion: DiffusionWork | None = None
        #: When its first payload arrived, if one is sent to it.
        self.input_at: float | None = None
        #: Some of what it made left for the client.
        self.gave_output = False
        #: Whether it began and ended to execute, and when as far as that is known.
        self.started = False
        self.started_at: float | None = None
        self.ended = False
        self.ended_at: float | None = None
        #: The scheduler itself says when it is over.
        self.tells_end = False
        #: ``omni_stage_started`` was called.
        self.announced = False
