"""What is known of each request that is open, and the events that follow from it.

The patches say what the engine does; nothing here knows the engine. A request's state lives from
:meth:`OpenRequests.begin` to :meth:`OpenRequest.end` and no longer.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.requests.exchange import Exchange
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests
from vllm_omni_metrics_plugin.requests.streamed_input import StreamedInput
from vllm_omni_metrics_plugin.requests.utterance import Utterance
from vllm_omni_metrics_plugin.requests.work import Delivery, StageWork

__all__ = [
    "Delivery",
    "Exchange",
    "OpenRequest",
    "OpenRequests",
    "StageWork",
    "StreamedInput",
    "Utterance",
]
