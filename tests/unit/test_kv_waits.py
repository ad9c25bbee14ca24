"""KV caches that wait for the connector: what the scheduler says of it, and whose they are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin.hooks import KvWaited
from vllm_omni_metrics_plugin.patches.kv_waits import wrap_raw_outputs
from vllm_omni_metrics_plugin.patches.state import EngineState

WAITED = {"kv_wait_s": 0.25, "connector_type": "SharedMemoryConnector"}
LABELS = {
    **{"model_name": "tiny", "stage": "1", "replica": "3"},
    "connector_type": "SharedMemoryConnector",
}


class Orchestrator:
    def __init__(self) -> None:
        self.handled: list[Any] = []

    async def handle(self, stage_id: int, raw_outputs: Any) -> str:
        self.handled.append((stage_id, raw_outputs))
        return "done"


def put_out(state: EngineState, *outputs: tuple[str, Any], stage: int = 0) -> None:
    """A stage engine puts out a step's outputs: of whom, and with which parameters."""
    orchestrator = Orchestrator()
    raw = SimpleNamespace(
        outputs=[
            SimpleNamespace(request_id=request_id, kv_transfer_params=params)
            for request_id, params in outputs
        ]
    )
    handle = wrap_raw_outputs(Orchestrator.handle, state)
    assert asyncio.run(handle(orchestrator, stage, raw)) == "done"
    assert orchestrator.handled == [(stage, raw)]


@pytest.fixture
def _bound(state: EngineState) -> None:
    """A request at replicas 2 and 4 of the stages, and a companion of it at the first one's 1."""
    state.requests.begin("a", "a", "tiny", 0.0)
    state.requests.submitted("a", 0, 2, None)
    state.requests.submitted("a", 1, 4, None)
    state.requests.submitted("a__cfg", 0, 1, "a")


@pytest.mark.usefixtures("_bound")
def test_wait_is_told_with_its_holder(state: EngineState, recorder: Any) -> None:
    put_out(state, ("a", None), ("a", {"kv_ready": True}), ("a", WAITED), stage=1)
    assert recorder.only(KvWaited) == KvWaited(
        request_id="a",
        model_name="tiny",
        stage=1,
        replica=4,
        connector="SharedMemoryConnector",
        wait_seconds=0.25,
    )


@pytest.mark.usefixtures("_bound")
def test_companions_cache_is_its_parents_model_and_its_own_replica(
    state: EngineState, recorder: Any
) -> None:
    put_out(state, ("a__cfg", WAITED))
    event = recorder.only(KvWaited)
    assert (event.model_name, event.replica, event.parent_request_id) == ("tiny", 1, "a")


@pytest.mark.usefixtures("_bound")
def test_wait_of_0_seconds_and_a_connector_without_a_name_are_told(
    state: EngineState, recorder: Any
) -> None:
    put_out(state, ("a", {"kv_wait_s": 0.0, "connector_type": None}))
    event = recorder.only(KvWaited)
    assert (event.wait_seconds, event.connector) == (0.0, "unknown")


def test_wait_of_nobodys_request_is_not_told(state: EngineState, recorder: Any, log: Any) -> None:
    put_out(state, ("warm-up", WAITED))
    assert recorder.of(KvWaited) == []
    assert log.messages == []


def test_fault_of_ours_leaves_the_outputs_to_the_engine(
    state: EngineState, recorder: Any, log: Any
) -> None:
    put_out(state, ("a", "no dictionary"))
    assert recorder.of(KvWaited) == []
    [message] = log.messages
    assert "internal error in a KV cache that waited" in message


def test_outputs_are_not_looked_at_for_nobody(state: EngineState, log: Any) -> None:
    handle = wrap_raw_outputs(Orchestrator.handle, state)
    assert asyncio.run(handle(Orchestrator(), 0, "no outputs at all")) == "done"
    assert log.messages == []


def test_wait_is_timed_at_the_replica_that_held_the_cache(feed: Feed, exposed: Any) -> None:
    exposed.join()
    feed.wait_for_connector()
    feed.wait_for_connector(wait_seconds=2.0)
    feed.wait_for_connector(connector="MooncakeStoreConnector")
    assert exposed.value("kv_wait_seconds_count", **LABELS) == 2
    assert exposed.value("kv_wait_seconds_sum", **LABELS) == 2.0625
    assert exposed.missing() == {}


@pytest.mark.parametrize("changes", [{"model_name": None}, {"replica": None}])
def test_wait_of_an_unknown_holder_is_missing(
    feed: Feed, exposed: Any, changes: dict[str, Any]
) -> None:
    exposed.join()
    feed.wait_for_connector(**changes)
    assert exposed.missing() == {("kv_wait_seconds", "unknown_holder"): 1}
