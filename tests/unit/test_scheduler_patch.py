"""An engine that falls idle says so, once; the throttle holds otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.patches.engine_families import scheduler

BUSY = SimpleNamespace(num_running_reqs=4, num_waiting_reqs=1, kv_cache_usage=0.5)
IDLE = SimpleNamespace(num_running_reqs=0, num_waiting_reqs=0, kv_cache_usage=0.0)


Method = Callable[..., Any]


def applied(wrap: Callable[[Method, object], Method]) -> Callable[[Method], Method]:
    """The patch as a decorator."""
    return lambda original: wrap(original, None)


class Scheduler:
    """Throttled by a flag instead of a second."""

    def __init__(self) -> None:
        self.now: Any = BUSY
        self._last_stats_time = 0.0
        self.requests: dict[str, Any] = {}

    @applied(scheduler.wrap_make_stats)
    def make_stats(self) -> Any:
        if self._last_stats_time:
            return None
        self._last_stats_time = 1.0
        return self.now


class Core:
    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.sent: list[Any] = []
        self.output_queue = SimpleNamespace(put_nowait=self.sent.append)
        self.notified = 0

    @applied(scheduler.wrap_idle)
    def idle(self) -> None:
        self.notified += 1


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    module = ModuleType("vllm.v1.engine")
    module.EngineCoreOutputs = lambda scheduler_stats: scheduler_stats  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.v1.engine", module)
    return Core()


def test_engine_that_was_busy_sends_its_idle_state_once(core: Core) -> None:
    assert core.scheduler.make_stats() is BUSY
    core.scheduler.now = IDLE
    assert core.scheduler.make_stats() is None, "throttled"
    core.idle()
    core.idle()
    assert core.sent == [(0, IDLE)]
    assert core.notified == 2


def test_idle_state_goes_to_the_api_server_whose_request_came_last(core: Core) -> None:
    core.scheduler.requests = {
        name: SimpleNamespace(client_index=client) for name, client in (("a", 0), ("b", 2))
    }
    core.scheduler.make_stats()
    core.scheduler.requests.clear()
    core.scheduler.now = IDLE
    core.scheduler.make_stats()
    core.idle()
    assert core.sent == [(2, IDLE)]


def test_abort_after_the_last_step_is_sent_too(core: Core) -> None:
    core.scheduler.make_stats()
    core.scheduler.now = IDLE  # no step follows an abort that leaves nothing to do
    core.idle()
    assert core.sent == [(0, IDLE)]


def test_throttle_begins_anew_with_the_idle_state(core: Core) -> None:
    core.scheduler.make_stats()
    core.scheduler.now = IDLE
    core.idle()
    core.scheduler.now = BUSY
    assert core.scheduler.make_stats() is None


def test_engine_that_never_worked_sends_nothing(core: Core) -> None:
    core.idle()
    assert core.sent == []


def test_idle_state_that_was_sent_in_time_is_not_sent_again(core: Core) -> None:
    core.scheduler.now = IDLE
    assert core.scheduler.make_stats() is IDLE
    core.idle()
    assert core.sent == []


def test_request_that_is_skipped_over_is_not_idleness(core: Core) -> None:
    skipping = SimpleNamespace(num_running_reqs=0, num_skipped_waiting_reqs=1)
    core.scheduler.now = skipping
    core.scheduler.make_stats()
    core.scheduler.now = IDLE
    core.idle()
    assert core.sent == [(0, IDLE)]


def test_statistics_that_cannot_be_read_are_passed_on(core: Core, log: Any) -> None:
    core.scheduler.now = odd = SimpleNamespace(num_running_reqs="many")
    assert core.scheduler.make_stats() is odd
    assert len(log.messages) == 1


def test_scheduler_without_statistics_sends_nothing(core: Core) -> None:
    core.scheduler.now = None
    core.scheduler.make_stats()
    core.idle()
    assert core.sent == []


def test_fault_of_ours_does_not_reach_the_engine(core: Core, log: Any) -> None:
    core.scheduler.make_stats()
    core.output_queue = None  # type: ignore[assignment]
    core.idle()
    assert core.notified == 1
    assert len(log.messages) == 1


def test_statistics_are_kept_whatever_the_engine_was_told() -> None:
    @applied(scheduler.wrap_scheduler_init)
    def init(self: Any, *, log_stats: bool = False) -> None:
        self.log_stats = log_stats

    for told in ({}, {"log_stats": False}, {"log_stats": True}):
        made = SimpleNamespace()
        init(made, **told)
        assert made.log_stats


def test_statistics_are_kept_when_the_switch_is_passed_by_position() -> None:
    @applied(scheduler.wrap_scheduler_init)
    def init(self: Any, config: str, log_stats: bool = False) -> None:
        self.config, self.log_stats = config, log_stats

    made = SimpleNamespace()
    init(made, "config", False)
    assert (made.config, made.log_stats) == ("config", True)


def test_arguments_that_do_not_fit_are_refused_by_the_engine_itself() -> None:
    @applied(scheduler.wrap_scheduler_init)
    def init(self: Any, *, log_stats: bool = False) -> None:
        raise AssertionError("called with arguments that it does not take")

    with pytest.raises(TypeError, match="unexpected"):
        init(SimpleNamespace(), unexpected=1)
