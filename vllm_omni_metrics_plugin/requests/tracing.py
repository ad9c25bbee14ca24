"""Whether a request is recorded in a trace: decided once, where it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vllm_omni_metrics_plugin.requests.client import Client


class Accepted(NamedTuple):
    """A request that has arrived, before anybody is told of it."""

    request_id: str
    external_request_id: str
    model_name: str
    #: Monotonic seconds.
    arrived_at: float
    client: Client


#: The id of the trace that the request is recorded in, None if it is in none; must not block.
BeginTrace = Callable[[Accepted], str | None]
