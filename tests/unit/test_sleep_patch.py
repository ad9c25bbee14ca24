"""What a replica was told to do about sleeping, and whether it did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.patches.engine_families.sleep import wrap_collective_rpc
from vllm_omni_metrics_plugin.patches.state import EngineState

TASK = SimpleNamespace(level=2, task_id="one")


class StatLogger:
    """Notes which engine sleeps, and how."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []

    def show_sleep_state(self, engine_idx: int, level: int) -> None:
        self.shown.append((engine_idx, level))


class Pool:
    """Stage 1, whose replica 3 is engine 7."""

    stage_id = 1

    async def collective_rpc(
        self,
        replica_id: int,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if method == "fails":
            raise RuntimeError(method)
        return self.result

    result: Any = None


@pytest.fixture
def stat_logger() -> StatLogger:
    return StatLogger()


@pytest.fixture
def pool(state: EngineState, stat_logger: StatLogger, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(Pool, "collective_rpc", wrap_collective_rpc(Pool.collective_rpc, state))
    pool = Pool()
    state.stat_loggers[pool] = stat_logger, {(1, 3): 7}
    return pool


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "level"),
    [
        ("sleep", (1, "abort"), None, 1),
        ("sleep", (2, "abort"), None, 2),
        ("sleep", (), {"level": 2}, 2),
        ("sleep", (), None, 1),
        ("wake_up", (), {"tags": ["weights"]}, 0),
        ("handle_sleep_task", (TASK,), None, 2),
        ("handle_sleep_task", ({"level": 1},), None, 1),
        ("handle_sleep_task", (), {"task": TASK}, 2),
        ("handle_wake_task", (TASK,), None, 0),
    ],
)
def test_replica_that_was_put_to_sleep_or_woken_shows_it(
    pool: Pool,
    stat_logger: StatLogger,
    method: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    level: int,
) -> None:
    asyncio.run(pool.collective_rpc(3, method, None, args, kwargs))
    asyncio.run(pool.collective_rpc(replica_id=3, method=method, args=args, kwargs=kwargs))
    assert stat_logger.shown == [(7, level)] * 2


@pytest.mark.parametrize("result", [{"supported": False}, {"error": "out of memory"}])
def test_replica_that_cannot_sleep_stays_awake(
    pool: Pool, stat_logger: StatLogger, result: Any
) -> None:
    pool.result = result
    assert asyncio.run(pool.collective_rpc(3, "sleep", None, (1,))) is result
    assert stat_logger.shown == []


def test_other_calls_say_nothing_about_sleep(pool: Pool, stat_logger: StatLogger) -> None:
    asyncio.run(pool.collective_rpc(3, "list_loras"))
    with pytest.raises(RuntimeError, match="fails"):
        asyncio.run(pool.collective_rpc(3, "fails"))
    assert stat_logger.shown == []


def test_stage_without_an_engine_of_vllms_has_no_such_family(
    pool: Pool, stat_logger: StatLogger, state: EngineState
) -> None:
    del state.stat_loggers[pool]
    asyncio.run(pool.collective_rpc(3, "handle_sleep_task", None, (TASK,)))
    assert stat_logger.shown == []
