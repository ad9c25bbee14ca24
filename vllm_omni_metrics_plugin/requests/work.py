"""One stage's part in a request."""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks import DiffusionWork, StageSummary
from vllm_omni_metrics_plugin.requests.streamed_input import StreamedInput

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
        "finish_reasons",
        "gave_nothing",
        "gave_output",
        "generation_seconds",
        "had_pieces",
        "input_at",
        "output_at",
        "replica",
        "started",
        "started_at",
        "submitted_at",
        "tells_end",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, submitted_at: float, delivery: Delivery | None) -> None:
        self.submitted_at = submitted_at
        self.delivery = delivery
        self.replica: int | None = None
        self.generation_seconds: float | None = None
        #: The engine's words: one, or one for each piece of a streamed input and its end.
        self.finish_reasons: set[str | None] = set()
        #: Of its finish.
        self.finish_reason: str | None = None
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.diffusion: DiffusionWork | None = None
        #: It was done with a piece of a streamed input before the end. The engine then counts the
        #: tokens of the last piece or of all of them, and does not say which.
        self.had_pieces = False
        #: When its first payload arrived, if one is sent to it.
        self.input_at: float | None = None
        #: When its first output that is not empty reached the server.
        self.output_at: float | None = None
        #: It gave an output with nothing in it.
        self.gave_nothing = False
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

    def generated_until(
        self, finished_at: float, streamed_input: StreamedInput | None
    ) -> float | None:
        """Seconds for the request, without those in which the client sends its input."""
        if streamed_input is None:
            return finished_at - self.submitted_at
        if streamed_input.ended_at is None:
            return None
        return finished_at - max(self.submitted_at, streamed_input.ended_at)

    def summary(self, stage: int) -> StageSummary:
        """What is known of it now."""
        started_at, ended_at = self.started_at, self.ended_at
        queued = executed = None
        if started_at is not None:
            ready_at, input_at = self.submitted_at, self.input_at
            if input_at is not None and not self.tells_end:  # a diffusion engine begins without it
                ready_at = max(ready_at, input_at)
            queued = max(0.0, started_at - ready_at)
            if ended_at is not None:
                executed = max(0.0, ended_at - started_at)
        return StageSummary(
            stage=stage,
            replica=self.replica,
            submitted_at=self.submitted_at,
            started_at=started_at,
            ended_at=ended_at,
            queue_seconds=queued,
            execute_seconds=executed,
            generation_seconds=self.generation_seconds,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            finish_reason=self.finish_reason,
            diffusion=self.diffusion,
        )
