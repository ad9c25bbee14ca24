"""What an operator wants of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Objective:
    """What share (``target``) of the requests that it is about has to keep all of the limits."""

    name: str
    target: float
    #: The largest value that keeps each limit, by the stem of its family and in its unit.
    limits: Mapping[str, float]
    #: What the requests ask for (``audio``); None: it is about all of them.
    modality: str | None = None
    #: Whether their audio is streamed; None: both.
    streamed: bool | None = None
    #: Empty: all of them.
    models: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", MappingProxyType(dict(self.limits)))

    def is_about_model(self, model_name: str) -> bool:
        return not self.models or model_name in self.models
