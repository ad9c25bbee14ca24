"""The verdict on one request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vllm_omni_metrics_plugin.hooks.events import Verdict
from vllm_omni_metrics_plugin.objectives.objective import Objective


@dataclass(frozen=True)
class Ended:
    """What is known of a request at its end."""

    outcome: str
    #: How long it was open for its client, in seconds; None if that is not known.
    waited_seconds: float | None
    #: Its values, by the stems of their families; None, or nothing, where none was measured.
    values: Mapping[str, float | None]
    #: The stems of times, in seconds, that still ran when it ended: each is longer than it waited.
    running: Collection[str] = ()
    #: Its client left in a silence.
    left_stalled: bool = False


def judge(objective: Objective, request: Ended) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and all that makes it a bad one.

    A value that equals its limit keeps it, as it is counted in the bucket of that bound.
    """
    outcome, values, limits = request.outcome, request.values, objective.limits
    broken = [
        stem
        for stem, limit in limits.items()
        if (value := values.get(stem)) is not None and value > limit
    ]
    if outcome == "error":
        broken.append("error")
    elif outcome == "abort":
        if request.left_stalled:
            broken.append("left_stalled")
        waited = request.waited_seconds
        if waited is not None and any(waited > limits.get(s, waited) for s in request.running):
            broken.append("left_late")
    if broken:
        return "bad", tuple(broken)
    if outcome in ("abort", "rejected"):
        return "excluded", ()
    if any(values.get(stem) is None for stem in limits):
        return "unknown", ()
    return "good", ()
