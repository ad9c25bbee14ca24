"""What the patches of this process share."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vllm_omni_metrics_plugin.channel.hops import Transfers
from vllm_omni_metrics_plugin.requests.state import OpenRequests

open_requests = OpenRequests()
transfers = Transfers()

#: Called before an engine is built whose stages will report to this process.
before_engine: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Stage:
    """What the events of a stage pool's members say about it."""

    model_name: str
    stage_name: str
    stage_type: str


#: By stage pool, from the moment its engine is ready.
stages: weakref.WeakKeyDictionary[Any, Stage] = weakref.WeakKeyDictionary()
