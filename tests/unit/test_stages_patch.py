"""The orchestrator's outputs on their way to the client."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.stages import wrap_route_output
from vllm_omni_metrics_plugin.patches.state import EngineState


class Orchestrator:
    async def _route_output(self, stage_id: int, replica_id: int, output: Any, *rest: Any) -> Any:
        return (stage_id, replica_id, output, *rest)


def test_first_output_of_each_stage_has_its_time_and_goes_on_as_it_was(
    hooks: Any, clock: Any
) -> None:
    state = EngineState(hooks)
    route = wrap_route_output(Orchestrator._route_output, state)
    request = state.requests.begin("r", "r", "tiny", clock.now)
    for stage in (0, 1):
        request.submitting(stage, None)
    times = []
    for stage, whose in ((0, "r"), (0, "r"), (1, "r"), (7, "r"), (0, "nobody")):
        output = SimpleNamespace(request_id=whose)
        clock.advance(1.0)
        times.append(clock.now)
        routed = asyncio.run(route(Orchestrator(), stage, 2, output, "state", "metrics"))
        assert routed == (stage, 2, output, "state", "metrics")
    assert request.stages[0].output_at == times[0]
    assert request.stages[1].output_at == times[2]


def test_output_of_another_kind_is_routed_and_the_error_is_counted(hooks: Any) -> None:
    route = wrap_route_output(Orchestrator._route_output, EngineState(hooks))
    before = internal_errors.errors.counts().get("an output of a stage", 0)
    assert asyncio.run(route(Orchestrator(), 0, 0, None, 1)) == (0, 0, None, 1)
    assert internal_errors.errors.counts()["an output of a stage"] == before + 1
