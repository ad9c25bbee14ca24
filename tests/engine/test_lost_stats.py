"""Engine statistics that releases up to 0.24 lose: recorded from their real stage pools."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine import installed
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.patches.table import ABSENT

pytestmark = [
    pytest.mark.skipif(not installed.before("0.26.0"), reason=ABSENT["iterations"]),
    pytest.mark.usefixtures("seams"),
]


class Logger:
    """In the place of the stat logger: what it was given, with the engine's number."""

    def __init__(self) -> None:
        self.iterations: list[tuple[Any, int]] = []
        self.schedulers: list[tuple[Any, int]] = []

    def record_iteration(self, iteration_stats: Any, engine_idx: int) -> None:
        self.iterations.append((iteration_stats, engine_idx))

    def record(self, scheduler_stats: Any, iteration_stats: Any, *, engine_idx: int) -> None:
        assert iteration_stats is None
        self.schedulers.append((scheduler_stats, engine_idx))


class Client:
    """A replica's client that has one message."""

    stage_type = "llm"
    final_output = True

    def __init__(self, message: Any = None) -> None:
        self.message = message

    async def get_output_async(self) -> Any:
        return self.message

    async def abort_requests_async(self, request_ids: list[str]) -> None: ...


@pytest.fixture
def logger() -> Logger:
    return Logger()


@pytest.fixture
def pool(logger: Logger, state: EngineState) -> Any:
    """A real stage pool of a text stage with two replicas, engines 5 and 6."""
    from vllm_omni.engine.stage_pool import StagePool

    pool = StagePool(1, [Client(), Client()], output_processor=installed.output_processor("text"))
    numbers = {(1, 0): 5, (1, 1): 6}
    state.stat_loggers[pool] = (logger, numbers)
    return pool


def request(request_id: str) -> Any:
    from vllm.sampling_params import SamplingParams

    return installed.core_request(request_id, SamplingParams(detokenize=False))


def test_tokens_of_each_batch_are_recorded_for_the_replica_that_made_them(
    pool: Any, logger: Logger
) -> None:
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.metrics.stats import IterationStats

    pool.output_processor.add_request(request("a"), "hello")
    for replica, tokens in ((1, [7, 8]), (0, [9])):
        batch = EngineCoreOutputs(
            outputs=[installed.core_output({}, request_id="a", new_token_ids=tokens)],
            timestamp=1.0,
        )
        theirs = IterationStats()
        asyncio.run(pool.process_llm_raw_outputs(replica, batch, iteration_stats=theirs))
        assert theirs.num_generation_tokens == 0, "the engine's own stay empty"
    assert [(stats.num_generation_tokens, engine) for stats, engine in logger.iterations] == [
        (2, 6),
        (1, 5),
    ]


def test_state_of_an_idle_engine_is_recorded_and_its_message_is_dropped_as_ever(
    pool: Any, logger: Logger
) -> None:
    idle = SimpleNamespace(outputs=[], scheduler_stats=object())
    pool.clients[1].message = idle
    assert asyncio.run(pool._poll_stage_raw(pool.clients[1])) is None
    assert logger.schedulers == [(idle.scheduler_stats, 6)]


def test_state_that_comes_with_outputs_is_left_to_the_orchestrator(
    pool: Any, logger: Logger
) -> None:
    busy = SimpleNamespace(outputs=[object()], scheduler_stats=object())
    pool.clients[0].message = busy
    assert asyncio.run(pool._poll_stage_raw(pool.clients[0])) is busy
    assert logger.schedulers == []


def test_pool_without_a_stat_logger_is_served_as_ever(logger: Logger) -> None:
    from vllm_omni.engine.stage_pool import StagePool

    client = Client(SimpleNamespace(outputs=[], scheduler_stats=object()))
    pool = StagePool(1, [client], output_processor=installed.output_processor("text"))
    assert asyncio.run(pool._poll_stage_raw(client)) is None
    assert logger.schedulers == []
