"""Who leaves the pipeline at run time: told once, by whatever way the engine loses it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.patches import replicas
from vllm_omni_metrics_plugin.patches.state import EngineState, Stage


class Pool:
    """As the engine's: a replica that left is a hole, and its address stays known."""

    stage_id = 1

    def __init__(self) -> None:
        self.clients: list[Any] = ["first", "second"]

    def live_replica_ids(self) -> list[int]:
        return [number for number, client in enumerate(self.clients) if client is not None]

    def get_replica_id_by_addr(self, input_addr: str) -> int:
        return int(input_addr)

    def add_client(self, input_addr: str) -> int:
        self.clients[int(input_addr)] = "again"
        return int(input_addr)

    def remove_client(self, input_addr: str) -> Any:
        client, self.clients[int(input_addr)] = self.clients[int(input_addr)], None
        return client

    def evict_replica(self, replica_id: int) -> None:
        self.clients[replica_id] = None


class Engine:
    def __init__(self, pool: Pool) -> None:
        self.engine = SimpleNamespace(stage_pools=[pool])

    def shutdown(self) -> None: ...


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> Pool:
    for name, wrap in (
        ("add_client", replicas.wrap_add_client),
        ("remove_client", replicas.wrap_remove_client),
        ("evict_replica", replicas.wrap_evict_replica),
    ):
        monkeypatch.setattr(Pool, name, wrap(getattr(Pool, name), state))
    monkeypatch.setattr(Engine, "shutdown", replicas.wrap_shutdown(Engine.shutdown, state))
    pool = Pool()
    state.stages[pool] = Stage(model_name="tiny", stage_name="code2wav", stage_type="llm")
    return pool


def left(recorder: Any) -> list[int]:
    return [event.replica for event in recorder.of(ReplicaLeft)]


def reasons(recorder: Any) -> list[str | None]:
    return [event.reason for event in recorder.of(ReplicaLeft)]


def test_replica_that_is_removed_leaves_once(pool: Pool, recorder: Any) -> None:
    assert pool.remove_client("1") == "second"
    assert pool.remove_client("1") is None, "the engine's answer passes"
    assert left(recorder) == [1]
    assert reasons(recorder) == ["removed"]


def test_replica_that_dies_leaves_once_although_it_is_removed_as_well(
    pool: Pool, recorder: Any
) -> None:
    pool.evict_replica(1)
    pool.evict_replica(1)
    pool.remove_client("1")
    assert left(recorder) == [1]
    assert reasons(recorder) == ["died"]


def test_engine_that_stops_takes_only_those_with_it_that_are_there(
    pool: Pool, recorder: Any
) -> None:
    pool.evict_replica(0)
    Engine(pool).shutdown()
    assert left(recorder) == [0, 1]
    assert reasons(recorder) == ["died", "stopped"]


def test_replica_that_returns_may_leave_again(pool: Pool, recorder: Any) -> None:
    pool.evict_replica(1)
    pool.add_client("1")
    pool.remove_client("1")
    assert [event.replica for event in recorder.of(ReplicaJoined)] == [1]
    assert left(recorder) == [1, 1]
