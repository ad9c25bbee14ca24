"""The events of the stages' replicas and their engines."""

from __future__ import annotations

from typing import Any, Literal

from vllm_omni_metrics_plugin.hooks.events.base import Event


class ReplicaJoined(Event, frozen=True, kw_only=True):
    """A replica became a member of its stage."""

    model_name: str
    stage: int
    replica: int
    #: The pipeline's own name for the stage (``talker``); its number if it has none.
    stage_name: str
    #: ``llm`` or ``diffusion``.
    stage_type: str
    #: What leaves for the client from this stage, in the engine's words: ``text``, ``audio``,
    #: ``image``, ``video`` and others. Empty if nothing does, or the engine does not say.
    makes: tuple[str, ...] = ()
    #: The stages to which this one sends payloads through a connector. Empty if there is none, or
    #: the engine does not say.
    feeds: tuple[int, ...] = ()


#: ``stopped``: the engine was told to stop, and all its replicas with it. ``died``: the engine
#: found it dead. ``removed``: it is no member of its stage any more, as it was drained or as
#: nothing was heard of it; the engine does not say which.
Departure = Literal["stopped", "died", "removed"]


class ReplicaLeft(Event, frozen=True, kw_only=True):
    """A replica left its stage, or died."""

    model_name: str
    stage: int
    replica: int
    #: Why; None in events that do not say, as those that a test makes.
    reason: Departure | None = None


class EngineStats(Event, frozen=True, kw_only=True):
    """A stage engine's statistics were recorded (``PrometheusStatLogger.record``).

    The objects are vLLM's own, of ``vllm.v1.metrics.stats``; do not change them.
    """

    stage: int
    replica: int
    #: ``SchedulerStats``, at most once a second; None for the batches between.
    scheduler_stats: Any
    #: ``IterationStats``; None where a batch had no outputs.
    iteration_stats: Any
