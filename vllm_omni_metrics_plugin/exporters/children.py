"""The label children of stage replicas, bound once and looked up from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

#: The values of model_name, stage and replica.
Labels = tuple[str, str, str]
Children = TypeVar("Children")


class PerReplica(Generic[Children]):
    """One set of children for each replica that has had a sample."""

    def __init__(
        self, bind: Callable[[Mapping[str, Any], Labels], Children], families: Mapping[str, Any]
    ) -> None:
        """``bind`` makes a replica's children of the families, given by stem."""
        self._bind = bind
        self._families = families
        self._known: dict[tuple[str, int, int], Children] = {}

    def of(self, model_name: str, stage: int, replica: int) -> Children:
        key = (model_name, stage, replica)
        children = self._known.get(key)
        if children is None:
            labels = (model_name, str(stage), str(replica))
            children = self._known[key] = self._bind(self._families, labels)
        return children
