"""One stage's part in a request."""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks import DiffusionWork
from vllm_omni_metrics_plugin.requests.streamed_input import StreamedInput

#: How a stage delivers its output: new parts, the whole so far each time, or once at the end.
Delivery = Literal["delta", "cumulative", "final"]


class StageWork:
    """What a stage was asked to do for a request, and what it did."""

    __slots__ = (
        "delivery",
        "diffusion",
        "finish_reasons",
        "generation_seconds",
        "replica",
        "submitted_at",
    )

    def __init__(self, submitted_at: float, delivery: Delivery | None) -> None:
        self.submitted_at = submitted_at
        self.delivery = delivery
        self.replica: int | None = None
        self.generation_seconds: float | None = None
        #: The engine's words: one, or one for each piece of a streamed input and its end.
        self.finish_reasons: set[str | None] = set()
        self.diffusion: DiffusionWork | None = None

    def generated_until(
        self, finished_at: float, streamed_input: StreamedInput | None
    ) -> float | None:
        """Seconds for the request, without those in which the client sends its input."""
        if streamed_input is None:
            return finished_at - self.submitted_at
        if streamed_input.ended_at is None:
            return None
        return finished_at - max(self.submitted_at, streamed_input.ended_at)
