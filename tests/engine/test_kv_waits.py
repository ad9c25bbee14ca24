"""KV caches that wait: from the real scheduler's output to the real orchestrator, and its event."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import KvWaited
from vllm_omni_metrics_plugin.patches.state import EngineState


def put_out(waits: dict[str, float], *request_ids: str) -> list[Any]:
    """What the scheduler puts out once the connector has their caches; ``waits`` since when."""
    from vllm_omni.core.sched.omni_ar_scheduler import OmniARScheduler

    scheduler: Any = object.__new__(OmniARScheduler)
    scheduler._kv_wait_start_ts = waits
    scheduler._omni_kv_config = {"connector_config": {"type": "SharedMemoryConnector"}}
    outputs: dict[int, list[Any]] = {0: []}
    for request_id in request_ids:
        scheduler._emit_kv_wait_output(outputs, request_id, SimpleNamespace(client_index=0))
    return outputs[0]


@pytest.mark.usefixtures("seams")
@pytest.mark.parametrize("async_chunk", [False, True])
def test_wait_of_each_cache_is_told_once(
    state: EngineState, recorder: Any, async_chunk: bool
) -> None:
    from vllm_omni.engine.orchestrator import Orchestrator

    state.requests.begin("a", "a", "tiny", 0.0)
    state.requests.submitted("a", 0, 1, None)
    orchestrator: Any = object.__new__(Orchestrator)
    orchestrator.async_chunk = async_chunk
    orchestrator.request_states = {}
    outputs = put_out({"a": time.monotonic() - 0.25}, "a", "a", "never waited")
    raw = SimpleNamespace(outputs=outputs)
    asyncio.run(orchestrator._handle_kv_ready_raw_outputs(0, raw))

    event = recorder.only(KvWaited)
    assert (event.model_name, event.stage, event.replica) == ("tiny", 0, 1)
    assert event.connector == "SharedMemoryConnector"
    assert event.wait_seconds == outputs[0].kv_transfer_params["kv_wait_s"] >= 0.25
