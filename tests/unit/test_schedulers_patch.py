"""What a scheduler admits and is done with, told once, and never in the engine's way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel.frames import EndedRecord, StartedRecord, can_be_sent
from vllm_omni_metrics_plugin.patches import schedulers
from vllm_omni_metrics_plugin.patches.process import clock as clock_name
from vllm_omni_metrics_plugin.patches.state import EngineState


class Scheduler:
    """Of tokens; admits what it is told to."""

    def __init__(self) -> None:
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(stage_id=1))
        self.requests: dict[str, Any] = {}

    def schedule(self, *new: str, throttle_prefills: bool = False) -> Any:
        for name in new:
            self.requests.setdefault(name, SimpleNamespace())
        return SimpleNamespace(scheduled_new_reqs=[SimpleNamespace(req_id=name) for name in new])


class Diffusion:
    def __init__(self) -> None:
        self.od_config = SimpleNamespace(stage_id=2)
        self._request_states: dict[str, Any] = {}

    def schedule(self, *new: str) -> Any:
        for name in new:
            self._request_states[name] = SimpleNamespace()
        return SimpleNamespace(
            scheduled_new_reqs=[SimpleNamespace(request_id=name) for name in new],
            num_running_reqs=len(self._request_states),
        )

    def _finish_requests(self, statuses: dict[str, Any], errors: Any = None) -> set[str]:
        return set(statuses)


@pytest.fixture
def told(state: EngineState) -> list[Any]:
    """What the process reports."""
    told: list[Any] = []
    state.report = told.append
    return told


@pytest.fixture
def schedule(state: EngineState) -> Any:
    return schedulers.wrap_schedule(Scheduler.schedule, state)


def test_first_admission_is_told_and_no_other(told: list[Any], schedule: Any, clock: Any) -> None:
    scheduler = Scheduler()
    output = schedule(scheduler, "a", throttle_prefills=True)
    assert [new.req_id for new in output.scheduled_new_reqs] == ["a"]
    clock.advance(1.0)
    schedule(scheduler, "a", "b")  # "a" was preempted, or has its next chunk
    assert told == [
        StartedRecord(request_id=name, stage=1, replica=None, started_at=at, clock=clock_name())
        for name, at in (("a", 1000.0), ("b", 1001.0))
    ]
    assert all(map(can_be_sent, told))


def test_id_that_is_used_again_starts_again(told: list[Any], schedule: Any) -> None:
    scheduler = Scheduler()
    schedule(scheduler, "a")
    del scheduler.requests["a"]
    schedule(scheduler, "a")
    assert [record.request_id for record in told] == ["a", "a"]


def test_step_in_which_nothing_starts_looks_at_nothing_else(
    told: list[Any], schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(schedulers, "_report_starts")
    assert schedule(Scheduler()).scheduled_new_reqs == []
    assert told == []
    assert internal_errors.errors.counts() == {}


def test_scheduler_of_another_kind_goes_on_unseen(told: list[Any], state: EngineState) -> None:
    schedule = schedulers.wrap_schedule(lambda self: "an output", state)
    assert schedule(object()) == "an output"
    assert told == []
    assert list(internal_errors.errors.counts().values()) == [1]


def test_engine_whose_scheduler_fails_hears_it(state: EngineState) -> None:
    def schedule(self: Any) -> Any:
        raise MemoryError("out of blocks")

    with pytest.raises(MemoryError):
        schedulers.wrap_schedule(schedule, state)(object())


def test_diffusion_says_how_many_it_executes_beside(told: list[Any], state: EngineState) -> None:
    schedule = schedulers.wrap_diffusion_schedule(Diffusion.schedule, state)
    engine = Diffusion()
    schedule(engine, "a", "b")
    schedule(engine, "c")
    assert [(record.request_id, record.others) for record in told] == [
        *(("a", 0), ("b", 1)),
        ("c", 2),
    ]
    assert {(record.stage, record.tells_end) for record in told} == {(2, True)}


def test_diffusion_tells_the_ends_of_what_it_started(
    told: list[Any], state: EngineState, clock: Any
) -> None:
    engine = Diffusion()
    schedulers.wrap_diffusion_schedule(Diffusion.schedule, state)(engine, "a")
    engine._request_states["waiting"] = SimpleNamespace()
    told.clear()
    finish = schedulers.wrap_finish(Diffusion._finish_requests, state)
    assert finish(engine, {"a": 1, "waiting": 2}, errors=None) == {"a", "waiting"}
    assert finish(engine, {}) == set()
    assert told == [EndedRecord(request_id="a", stage=2, ended_at=clock.now, clock=clock_name())]


def test_process_that_nobody_listens_to_says_nothing(state: EngineState, schedule: Any) -> None:
    state.report = None
    schedule(Scheduler(), "a")
    schedulers.wrap_diffusion_schedule(Diffusion.schedule, state)(Diffusion(), "a")
    assert internal_errors.errors.counts() == {}


def test_id_that_is_too_long_for_the_channel_is_not_sent(told: list[Any], schedule: Any) -> None:
    schedule(Scheduler(), "x" * 513, "y" * 512)
    assert [record.request_id[0] for record in told] == ["y"]
