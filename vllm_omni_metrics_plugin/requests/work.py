"""One stage's part in a request."""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks import DiffusionWork

#: How a stage delivers its output: new parts, the whole so far each time, or once at the end.
Delivery = Literal["delta", "cumulative", "final"]


class StageWork:
    """What a stage was asked to do for a request, and what it did."""

    __slots__ = (
        "delivery",
        "diffusion",
        "finish_reason",
        "generation_seconds",
        "replica",
        "submitted_at",
    )

    def __init__(self, submitted_at: float, delivery: Delivery | None) -> None:
        self.submitted_at = submitted_at
        self.delivery = delivery
        self.replica: int | None = None
        self.generation_seconds: float | None = None
        self.finish_reason: str | None = None
        self.diffusion: DiffusionWork | None = None
