"""The label children of stage replicas, bound once and looked up from then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    MediaPacket,
    ReplicaJoined,
    RequestFinished,
    StreamFinished,
)

#: The values of model_name, stage and replica.
Labels = tuple[str, str, str]
Children = TypeVar("Children")


def exemplar_of(event: MediaPacket | StreamFinished | RequestFinished) -> dict[str, str] | None:
    """Where to look at the request that a sample is of; None if it is not traced."""
    return None if event.trace_id is None else {"trace_id": event.trace_id}


class PerReplica(dict[tuple[str, int, int], Children], Generic[Children]):
    """One set of children for each replica (model, stage, replica) that may have samples.

    A dictionary that makes what it lacks: what exists is found without a call.
    """

    def __init__(self, bind: Callable[[Families, Labels], Children], families: Families) -> None:
        """``bind`` makes a replica's children."""
        super().__init__()
        self._bind = bind
        self._families = families

    def __missing__(self, key: tuple[str, int, int]) -> Children:
        model_name, stage, replica = key
        labels = (model_name, str(stage), str(replica))
        children = self[key] = self._bind(self._families, labels)
        return children

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series of a replica stand at 0 before its first sample."""
        self[event.model_name, event.stage, event.replica]
