"""What a bad listener can not do: to the caller, to other listeners, to the counts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import HookRegistry, RequestArrived, RequestFinished, hookimpl
from vllm_omni_metrics_plugin.hooks.listener import BLOCKED_SECONDS, FAULTS_IN_A_ROW
from vllm_omni_metrics_plugin.hooks.stats import HookStats
from vllm_omni_metrics_plugin.hooks.worker import Worker

#: Longer than anything here takes on the slowest machine; nothing waits for it to pass.
PATIENCE = 60.0
ARRIVED = RequestArrived(
    request_id="a-1", external_request_id="a", model_name="tiny", arrived_at=0.0
)
FINISHED = RequestFinished(
    request_id="a-1", model_name="tiny", outcome="stop", end_to_end_seconds=1.0, queue_seconds=None
)


@pytest.fixture
def registry() -> Iterator[HookRegistry]:
    hooks = HookRegistry()
    yield hooks
    for name in list(hooks._registered):
        hooks.unregister(name)


@pytest.fixture
def good(registry: HookRegistry, new_recorder: Any) -> Any:
    """A listener that does everything right; it is called after those registered later."""
    recorder = new_recorder()
    registry.register(recorder, "good")
    return recorder


def plugin(function: Callable[[RequestArrived], object], **options: Any) -> Any:
    """A plugin that implements omni_request_arrived with ``function``."""

    class Plugin:
        @hookimpl(**options)
        def omni_request_arrived(self, event: RequestArrived) -> object:
            return function(event)

    return Plugin()


def account(registry: HookRegistry, name: str, hook: str = "omni_request_arrived") -> HookStats:
    [found] = [a for a in registry.stats() if (a.plugin, a.hook) == (name, hook)]
    return found


def recurse(event: RequestArrived) -> object:
    return recurse(event)


def fail(event: RequestArrived) -> object:
    raise RuntimeError("broken")


def leave(event: RequestArrived) -> object:
    sys.exit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


def fail_badly(event: RequestArrived) -> object:
    raise Unprintable


async def coroutine(event: RequestArrived) -> None: ...


def generator(event: RequestArrived) -> Iterator[None]:
    yield


FAULTS = [fail, leave, recurse, fail_badly, coroutine, generator]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("slow", [False, True], ids=["inline", "slow"])
def test_fault_is_counted_each_time_logged_once_and_switches_off_in_the_end(
    registry: HookRegistry, good: Any, log: Any, fault: Any, slow: bool
) -> None:
    registry.register(plugin(fault, slow=slow), "bad")
    calls = FAULTS_IN_A_ROW + 5
    for _ in range(calls):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)

    assert good.events == [ARRIVED] * calls
    bad = account(registry, "bad")
    assert (bad.errors, bad.is_on) == (FAULTS_IN_A_ROW, False)
    assert bad.calls == FAULTS_IN_A_ROW, "what was queued when it was switched off is dropped"
    assert account(registry, "good") == ("good", "omni_request_arrived", calls, 0, 0, True)
    # On a busy machine, a fault may take so long that it is told as well.
    others = ("lost an event", "slow=True")
    warnings = [text for text in log.messages if not any(other in text for other in others)]
    assert len(warnings) == 2, warnings
    assert all("'bad'" in message and "omni_request_arrived" in message for message in warnings)
    assert "switch_on('bad')" in warnings[1]
    names = [listener.plugin for listener in registry.hooks.omni_request_arrived.listeners]
    assert names == ["good"], "a hook that nobody hears costs nothing again"


def test_switched_off_listener_listens_again_when_it_is_switched_on(
    registry: HookRegistry, log: Any
) -> None:
    broken = [True]
    heard = []

    def listen(event: RequestArrived) -> None:
        if broken:
            raise RuntimeError
        heard.append(event)

    registry.register(plugin(listen), "bad")
    for _ in range(FAULTS_IN_A_ROW + 1):
        registry.hooks.omni_request_arrived(ARRIVED)
    broken.clear()
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == []
    registry.switch_on("bad")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [ARRIVED]
    assert account(registry, "bad").is_on
    with pytest.raises(ValueError, match="'bat' is not registered; did you mean bad"):
        registry.switch_on("bat")


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "slow"])
def test_listener_that_succeeds_in_between_stays_on(
    registry: HookRegistry, log: Any, slow: bool
) -> None:
    outcomes = iter(([True] * (FAULTS_IN_A_ROW - 1) + [False]) * 3)

    def listen(event: RequestArrived) -> None:
        if next(outcomes):
            raise RuntimeError

    registry.register(plugin(listen, slow=slow), "moody")
    for _ in range(3 * FAULTS_IN_A_ROW):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)
    moody = account(registry, "moody")
    assert (moody.errors, moody.is_on) == (3 * (FAULTS_IN_A_ROW - 1), True)
    assert len(log.messages) == 1


def test_faults_in_one_hook_leave_the_plugins_other_hooks_on(registry: HookRegistry) -> None:
    heard = []

    class Half:
        @hookimpl
        def omni_request_arrived(self, event: RequestArrived) -> None:
            raise RuntimeError

        @hookimpl
        def omni_request_finished(self, event: RequestFinished) -> None:
            heard.append(event)

    registry.register(Half(), "half")
    for _ in range(FAULTS_IN_A_ROW):
        registry.hooks.omni_request_arrived(ARRIVED)
    registry.hooks.omni_request_finished(FINISHED)
    assert heard == [FINISHED]
    assert not account(registry, "half").is_on
    assert account(registry, "half", "omni_request_finished").is_on


@pytest.mark.parametrize("garbage", ["text", 0, False, object(), [1]], ids=repr)
def test_returned_garbage_is_said_once_and_is_no_error(
    registry: HookRegistry, good: Any, log: Any, garbage: object
) -> None:
    registry.register(plugin(lambda event: garbage), "bad")
    hook: Callable[[Any], object] = registry.hooks.omni_request_arrived
    for _ in range(FAULTS_IN_A_ROW + 1):
        assert hook(ARRIVED) is None
    assert good.events == [ARRIVED] * (FAULTS_IN_A_ROW + 1)
    assert account(registry, "bad") == (
        ("bad", "omni_request_arrived", FAULTS_IN_A_ROW + 1, 0, 0, True)
    )
    [warning] = log.messages
    assert "'bad'" in warning
    assert type(garbage).__name__ in warning


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "slow"])
def test_listener_that_calls_its_own_hook_is_not_obeyed(
    registry: HookRegistry, good: Any, log: Any, slow: bool
) -> None:
    registry.register(plugin(lambda event: registry.hooks.omni_request_arrived(event), slow=slow))
    for _ in range(FAULTS_IN_A_ROW):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)
    assert good.events == [ARRIVED] * FAULTS_IN_A_ROW, "once each"
    [bad] = [a for a in registry.stats() if a.plugin != "good"]
    assert (bad.errors, bad.is_on) == (FAULTS_IN_A_ROW, False)


def test_listener_may_fire_another_hook(registry: HookRegistry, good: Any) -> None:
    registry.register(plugin(lambda event: registry.hooks.omni_request_finished(FINISHED)))
    registry.hooks.omni_request_arrived(ARRIVED)
    assert good.events == [FINISHED, ARRIVED]


def test_hook_called_by_two_threads_at_once_is_no_recursion(
    registry: HookRegistry, good: Any
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(event: RequestArrived) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert go_on.wait(PATIENCE)

    registry.register(plugin(wait), "waiting")
    other = threading.Thread(target=registry.hooks.omni_request_arrived, args=(ARRIVED,))
    other.start()
    assert inside.wait(PATIENCE)
    registry.hooks.omni_request_arrived(ARRIVED)
    go_on.set()
    other.join()
    assert len(good.events) == 2
    assert [a.errors for a in registry.stats() if a.errors] == []


def test_calls_are_counted_exactly_when_threads_compete(registry: HookRegistry) -> None:
    registry.register(plugin(lambda event: None), "counted")
    hook: Any = registry.hooks.omni_request_arrived
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [hook(ARRIVED) for _ in range(5000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert account(registry, "counted").calls == 20000
    assert hook.busy == 0


# Slow listeners


def test_slow_listener_hears_every_event_in_order_on_a_thread_of_its_own(
    registry: HookRegistry,
) -> None:
    heard: list[tuple[Any, int]] = []

    class Slow:
        @hookimpl(slow=True)
        def omni_request_arrived(self, event: RequestArrived) -> None:
            heard.append((event, threading.get_ident()))

        @hookimpl(slow=True)
        def omni_request_finished(self, event: RequestFinished) -> None:
            heard.append((event, threading.get_ident()))

    registry.register(Slow(), "slow")
    for _ in range(50):
        registry.hooks.omni_request_arrived(ARRIVED)
        registry.hooks.omni_request_finished(FINISHED)
    assert registry.flush(PATIENCE)
    assert [event for event, _ in heard] == [ARRIVED, FINISHED] * 50
    threads = {thread for _, thread in heard}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_full_queue_drops_exactly_what_it_has_no_room_for(
    registry: HookRegistry, good: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.registry.Worker", lambda name: Worker(name, 5)
    )
    inside, go_on = threading.Event(), threading.Event()
    heard = []

    def wait(event: RequestArrived) -> None:
        inside.set()
        assert go_on.wait(PATIENCE)
        heard.append(event)

    registry.register(plugin(wait, slow=True), "slow")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert inside.wait(PATIENCE)  # it holds the first event, and its queue is empty
    for _ in range(12):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert len(good.events) == 13, "nobody waited for it"
    go_on.set()
    assert registry.flush(PATIENCE)
    assert account(registry, "slow") == ("slow", "omni_request_arrived", 6, 0, 7, True)
    assert len(heard) == 6
    [warning] = log.messages
    assert "queue of 5 events is full" in warning


def test_one_slow_plugin_does_not_keep_another_one_waiting(registry: HookRegistry) -> None:
    go_on, heard = threading.Event(), threading.Event()
    registry.register(plugin(lambda event: go_on.wait(PATIENCE) and None, slow=True), "stuck")
    registry.register(plugin(lambda event: heard.set(), slow=True), "free")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard.wait(PATIENCE)
    assert not registry.flush(0.0), "the stuck one has not got there"
    go_on.set()
    assert registry.flush(PATIENCE)


def test_listener_that_holds_the_server_up_is_moved_to_a_thread_with_its_whole_plugin(
    registry: HookRegistry, good: Any, log: Any
) -> None:
    heard: list[tuple[str, bool]] = []
    main = threading.get_ident()

    class Sleepy:
        @hookimpl
        def omni_request_arrived(self, event: RequestArrived) -> None:
            heard.append(("arrived", threading.get_ident() == main))
            time.sleep(BLOCKED_SECONDS / 2)

        @hookimpl
        def omni_request_finished(self, event: RequestFinished) -> None:
            heard.append(("finished", threading.get_ident() == main))

    registry.register(Sleepy(), "sleepy")
    for _ in range(5):
        registry.hooks.omni_request_arrived(ARRIVED)
    registry.hooks.omni_request_finished(FINISHED)
    assert registry.flush(PATIENCE)
    arrived = [inline for name, inline in heard if name == "arrived"]
    assert 1 <= arrived.count(True) <= 3
    assert len(arrived) == 5, "nothing is lost"
    assert heard[-1] == ("finished", False)
    assert len(good.events) == 6
    [warning] = log.messages
    assert "'sleepy'" in warning
    assert "slow=True" in warning


def test_short_delays_are_forgiven_with_time(
    registry: HookRegistry, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("vllm_omni_metrics_plugin.hooks.dispatch.monotonic", lambda: now[0])
    monkeypatch.setattr("vllm_omni_metrics_plugin.hooks.listener.monotonic", lambda: now[0])

    def busy(event: RequestArrived) -> None:
        now[0] += 0.02

    registry.register(plugin(busy), "busy")
    for _ in range(100):
        registry.hooks.omni_request_arrived(ARRIVED)
        now[0] += 1.0
    assert log.messages == []
    for _ in range(30):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert len(log.messages) == 1


def test_operator_can_vouch_for_a_plugin_that_it_waits_for_nothing(
    registry: HookRegistry, log: Any
) -> None:
    registry.register(plugin(lambda event: time.sleep(BLOCKED_SECONDS)), "vouched", timed=False)
    registry.hooks.omni_request_arrived(ARRIVED)
    registry.hooks.omni_request_arrived(ARRIVED)
    assert log.messages == []


# Leaving


def test_unregistered_slow_plugin_is_still_told_what_was_queued_and_its_counts_stay(
    registry: HookRegistry,
) -> None:
    go_on = threading.Event()
    heard = []

    def listen(event: RequestArrived) -> None:
        assert go_on.wait(PATIENCE)
        heard.append(event)

    registry.register(plugin(listen, slow=True), "slow")
    for _ in range(3):
        registry.hooks.omni_request_arrived(ARRIVED)
    [worker] = [registered.worker for registered in registry._registered.values()]
    registry.unregister("slow")
    registry.hooks.omni_request_arrived(ARRIVED)
    go_on.set()
    assert worker._thread is not None
    worker._thread.join(PATIENCE)
    assert heard == [ARRIVED] * 3
    assert account(registry, "slow") == ("slow", "omni_request_arrived", 3, 0, 0, False)

    registry.register(plugin(listen, slow=True), "slow")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)
    assert account(registry, "slow").calls == 4, "counters go on, they never begin anew"


def test_plugin_is_unregistered_by_itself_or_by_its_name(registry: HookRegistry) -> None:
    mine = plugin(lambda event: None)
    assert registry.register(mine, "mine") == "mine"
    registry.unregister("mine")
    registry.register(mine, "mine")
    registry.unregister(mine)
    assert registry.hooks.omni_request_arrived.listeners == ()
    with pytest.raises(ValueError, match="not registered"):
        registry.unregister(mine)
    with pytest.raises(ValueError, match="'mine' is not registered"):
        registry.unregister("mine")


def test_nothing_of_an_unregistered_plugin_is_kept(registry: HookRegistry) -> None:
    import gc
    import weakref

    mine = plugin(lambda event: None, slow=True)
    gone = weakref.ref(mine)
    registry.register(mine, "mine")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)
    [worker] = [registered.worker for registered in registry._registered.values()]
    registry.unregister(mine)
    assert worker._thread is not None
    worker._thread.join(PATIENCE)
    registry.stats()
    del mine, worker
    gc.collect()
    assert gone() is None


# Tracing


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "slow"])
def test_tracing_logs_each_call_with_plugin_hook_and_event(
    registry: HookRegistry, log: Any, slow: bool
) -> None:
    registry.register(plugin(lambda event: None, slow=slow), "early")
    registry.trace()
    registry.register(plugin(lambda event: None, slow=slow), "late")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert registry.flush(PATIENCE)
    lines = sorted(log.messages)
    assert len(lines) == 2
    for line, name in zip(lines, ("early", "late"), strict=True):
        assert f"omni_request_arrived -> {name} in " in line
        assert "request_id='a-1'" in line
