"""The label children of stage replicas, bound once and looked up from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

#: The values of model_name, stage and replica.
Labels = tuple[str, str, str]
Children = TypeVar("Children")


class PerReplica(dict[tuple[str, int, int], Children], Generic[Children]):
    """One set of children for each replica (model, stage, replica) that has had a sample.

    A dictionary that makes what it lacks: what exists is found without a call.
    """

    def __init__(
        self, bind: Callable[[Mapping[str, Any], Labels], Children], families: Mapping[str, Any]
    ) -> None:
        """``bind`` makes a replica's children of the families, given by stem."""
        super().__init__()
        self._bind = bind
        self._families = families

    def __missing__(self, key: tuple[str, int, int]) -> Children:
        model_name, stage, replica = key
        labels = (model_name, str(stage), str(replica))
        children = self[key] = self._bind(self._families, labels)
        return children
