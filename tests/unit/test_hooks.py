"""The public API for listeners: who is called, in which order, and what a bad one can not do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pluggy
import pytest

from vllm_omni_metrics_plugin.hooks import (
    Configured,
    Event,
    HookRegistry,
    RequestArrived,
    RequestFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.hooks.loading import load_installed
from vllm_omni_metrics_plugin.hooks.sources import SERVER_GROUP
from vllm_omni_metrics_plugin.hooks.specs import PROJECT
from vllm_omni_metrics_plugin.settings import Settings

ARRIVED = RequestArrived(
    request_id="a-1", external_request_id="a", model_name="tiny", arrived_at=0.0
)
FINISHED = RequestFinished(
    request_id="a-1",
    model_name="tiny",
    outcome="stop",
    end_to_end_seconds=1.0,
    queue_seconds=None,
)
#: What a package may mark its functions with that does not know ours.
pluggys_own = pluggy.HookimplMarker(PROJECT)

CONFIGURED = Configured(settings=Settings(enabled=True), role="server", versions={})


@pytest.fixture
def registry() -> HookRegistry:
    return HookRegistry()


@pytest.fixture
def heard() -> list[tuple[str, Event]]:
    return []


def listener(heard: list[tuple[str, Event]], name: str, **options: Any) -> Any:
    """A plugin that notes under ``name`` what arrives."""

    class Listening:
        @hookimpl(**options)
        def omni_request_arrived(self, event: RequestArrived) -> None:
            heard.append((name, event))

    return Listening()


def raising(error: BaseException) -> Any:
    class Raising:
        @hookimpl
        def omni_request_arrived(self, event: RequestArrived) -> None:
            raise error

    return Raising()


# Registering


def test_object_listens_until_it_is_unregistered(registry: HookRegistry, heard: list[Any]) -> None:
    plugin = listener(heard, "mine")
    assert registry.register(plugin, "mine") == "mine"
    registry.hooks.omni_request_arrived(ARRIVED)
    registry.hooks.omni_request_finished(FINISHED)  # it does not implement this one
    registry.unregister(plugin)
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("mine", ARRIVED)]


def test_listener_gets_the_very_event(registry: HookRegistry, heard: list[Any]) -> None:
    registry.register(listener(heard, "mine"))
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard[0][1] is ARRIVED


def test_module_listens(registry: HookRegistry, heard: list[Any]) -> None:
    module = ModuleType("listening_module")

    @hookimpl
    def omni_request_arrived(event: RequestArrived) -> None:
        heard.append(("module", event))

    module.omni_request_arrived = omni_request_arrived  # type: ignore[attr-defined]
    assert registry.register(module) == "listening_module"
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("module", ARRIVED)]


def test_class_with_static_functions_listens(registry: HookRegistry, heard: list[Any]) -> None:
    class Listening:
        @staticmethod
        @hookimpl
        def omni_request_arrived(event: RequestArrived) -> None:
            heard.append(("class", event))

    registry.register(Listening)
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("class", ARRIVED)]


def test_unmarked_functions_are_left_alone(registry: HookRegistry) -> None:
    class Unmarked:
        def omni_request_arrived(self, event: RequestArrived) -> None:
            raise AssertionError("not marked, not called")

    registry.register(Unmarked())
    assert registry.hooks.omni_request_arrived.listeners == ()


def test_hook_under_another_function_name_is_heard(
    registry: HookRegistry, heard: list[Any]
) -> None:
    class Listening:
        @hookimpl(specname="omni_request_arrived")
        def note(self, event: RequestArrived) -> None:
            heard.append(("note", event))

    registry.register(Listening())
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("note", ARRIVED)]


def test_every_hook_reaches_a_listener_of_all(registry: HookRegistry, new_recorder: Any) -> None:
    recorder = new_recorder()
    registry.register(recorder)
    sent = [object() for _ in vars(registry.hooks)]
    for hook, event in zip(vars(registry.hooks).values(), sent, strict=True):
        assert len(hook.listeners) == 1, hook.name
        hook(event)
    assert recorder.events == sent


def _unknown_hook() -> Any:
    class Bad:
        @hookimpl
        def omni_nonsense(self, event: Event) -> None: ...

    return Bad()


def _wrong_argument() -> Any:
    class Bad:
        @hookimpl
        def omni_request_finished(self, request: Event) -> None: ...

    return Bad()


def _additional_argument() -> Any:
    class Bad:
        @hookimpl
        def omni_request_finished(self, event: Event, more: Any) -> None: ...

    return Bad()


def _no_argument() -> Any:
    class Bad:
        @hookimpl
        def omni_request_finished(self) -> None: ...

    return Bad()


def _old_wrapper() -> Any:
    class Bad:
        @pluggys_own(hookwrapper=True)
        def omni_request_finished(self, event: Event) -> Iterator[None]:
            yield

    return Bad()


def _wrapper() -> Any:
    class Bad:
        @pluggys_own(wrapper=True)
        def omni_request_finished(self, event: Event) -> Iterator[None]:
            yield

    return Bad()


def _historic_wrapper() -> Any:
    class Bad:
        @pluggys_own(wrapper=True)
        def omni_configured(self, event: Event) -> Iterator[None]:
            yield

    return Bad()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (_unknown_hook, "omni_nonsense"),
        (_wrong_argument, "omni_request_finished"),
        (_additional_argument, "omni_request_finished"),
        (_no_argument, "omni_request_finished"),
        (_old_wrapper, "omni_request_finished"),
        (_wrapper, "omni_request_finished"),
        (_historic_wrapper, "omni_configured"),
    ],
)
def test_plugin_that_does_not_fit_is_refused_as_a_whole(
    registry: HookRegistry, heard: list[Any], make: Callable[[], Any], fault: str
) -> None:
    class Mixed(type(make())):  # type: ignore[misc]
        """The fault beside an implementation without one."""

        @hookimpl
        def omni_request_arrived(self, event: Event) -> None:
            heard.append(("half registered", event))

    plugin = Mixed()
    with pytest.raises(ValueError, match=fault) as refused:
        registry.register(plugin, "misfit")
    assert "misfit" in str(refused.value)

    other = listener(heard, "other")
    registry.register(other)
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("other", ARRIVED)], "nothing of it is registered, others still can be"
    assert registry.register(listener(heard, "mended"), "misfit") == "misfit", "its name is free"


def test_plugin_is_not_registered_twice(registry: HookRegistry, heard: list[Any]) -> None:
    plugin = listener(heard, "mine")
    registry.register(plugin, "mine")
    with pytest.raises(ValueError, match="mine"):
        registry.register(plugin, "mine")
    with pytest.raises(ValueError, match="another"):
        registry.register(plugin, "another")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("mine", ARRIVED)]


def test_name_is_given_to_one_plugin_only(registry: HookRegistry, heard: list[Any]) -> None:
    registry.register(listener(heard, "first"), "mine")
    with pytest.raises(ValueError, match="mine"):
        registry.register(listener(heard, "second"), "mine")
    registry.hooks.omni_request_arrived(ARRIVED)
    assert heard == [("first", ARRIVED)]


# Order


def test_listeners_are_called_in_pluggys_order(registry: HookRegistry, heard: list[Any]) -> None:
    for name, options in (
        ("first of all", {"tryfirst": True}),
        ("last of all", {"trylast": True}),
        ("registered early", {}),
        ("registered late", {}),
    ):
        registry.register(listener(heard, name, **options))
    registry.hooks.omni_request_arrived(ARRIVED)
    assert [name for name, _ in heard] == [
        "first of all",
        "registered late",
        "registered early",
        "last of all",
    ]


# Events of the past


def test_late_listener_is_told_past_events_of_historic_hooks_once(
    registry: HookRegistry, new_recorder: Any
) -> None:
    early, late = new_recorder(), new_recorder()
    registry.register(early)
    registry.hooks.omni_configured(CONFIGURED)
    registry.hooks.omni_request_arrived(ARRIVED)
    registry.register(late)
    assert late.events == [CONFIGURED], "what is not historic is over"
    registry.register(new_recorder())
    assert early.events == [CONFIGURED, ARRIVED]
    assert late.events == [CONFIGURED]
    registry.hooks.omni_configured(CONFIGURED)
    assert late.events == [CONFIGURED, CONFIGURED]


def test_fault_of_a_late_listener_stays_its_own(registry: HookRegistry, log: Any) -> None:
    class Broken:
        @hookimpl
        def omni_configured(self, event: Configured) -> None:
            raise RuntimeError("broken")

    registry.hooks.omni_configured(CONFIGURED)
    assert registry.register(Broken(), "broken") == "broken"
    assert len(log.messages) == 1


# Isolation


def test_without_listeners_a_hook_is_false_before_any_event_is_built(
    registry: HookRegistry, heard: list[Any]
) -> None:
    for hook in vars(registry.hooks).values():
        assert hook.listeners == ()
        assert isinstance(hook.listeners, tuple)
    plugin = listener(heard, "mine")
    registry.register(plugin)
    assert registry.hooks.omni_request_arrived.listeners
    registry.unregister(plugin)
    assert not registry.hooks.omni_request_arrived.listeners


@pytest.mark.parametrize(
    "error",
    [RuntimeError("broken"), SystemExit(3), asyncio.CancelledError(), GeneratorExit()],
    ids=repr,
)
def test_listener_that_raises_stops_nobody_and_is_counted_each_time_and_logged_once(
    registry: HookRegistry,
    heard: list[Any],
    log: Any,
    error: BaseException,
) -> None:
    registry.register(listener(heard, "after"))
    registry.register(raising(error), "broken")
    registry.register(listener(heard, "before"))
    for _ in range(3):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert [name for name, _ in heard] == ["before", "after"] * 3
    [account] = [account for account in registry.stats() if account.errors]
    assert account == ("broken", "omni_request_arrived", 3, 3, 0, True)
    [record] = log.records
    assert record.exc_info[1] is error
    assert "broken" in record.getMessage()
    assert "omni_request_arrived" in record.getMessage()


def test_each_faulty_plugin_is_logged_by_its_own_name(registry: HookRegistry, log: Any) -> None:
    for name in ("one", "two"):
        registry.register(raising(RuntimeError()), name)
    registry.hooks.omni_request_arrived(ARRIVED)
    assert sorted("'one'" in message for message in log.messages) == [False, True]
    assert sorted("'two'" in message for message in log.messages) == [False, True]


def test_operators_interrupt_is_not_swallowed(registry: HookRegistry, log: Any) -> None:
    registry.register(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        registry.hooks.omni_request_arrived(ARRIVED)
    assert log.messages == []


# Installed plugins


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, heard: list[Any]) -> Callable[..., None]:
    """Pretends that hook plugins are installed: name -> object, or what importing it raises."""

    def pretend(**plugins: Any) -> None:
        entries = []
        for name, plugin in plugins.items():
            module = f"installed_{name}"
            entries.append(EntryPoint(name, f"{module}:plugin", SERVER_GROUP))
            if isinstance(plugin, BaseException):
                finder = _RaisingFinder(module, plugin)
                monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
            else:
                monkeypatch.setitem(sys.modules, module, ModuleType(module))
                sys.modules[module].plugin = plugin  # type: ignore[attr-defined]
        monkeypatch.setattr(
            "vllm_omni_metrics_plugin.hooks.sources.entry_points",
            lambda group: entries if group == SERVER_GROUP else [],
        )

    return pretend


class _RaisingFinder:
    def __init__(self, module: str, error: BaseException) -> None:
        self._module = module
        self._error = error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == self._module:
            raise self._error


def test_installed_plugins_are_loaded_under_their_entry_points_names(
    registry: HookRegistry, install: Callable[..., None], heard: list[Any]
) -> None:
    install(alpha=listener(heard, "alpha"), beta=listener(heard, "beta"))
    assert load_installed(registry, Settings()) == ["alpha", "beta"]
    registry.hooks.omni_request_arrived(ARRIVED)
    assert sorted(name for name, _ in heard) == ["alpha", "beta"]
    plugins = {listening.plugin for listening in registry.hooks.omni_request_arrived.listeners}
    assert plugins == {"alpha", "beta"}


@pytest.mark.parametrize(
    ("allowed", "blocked", "loaded"),
    [
        (None, set(), ["alpha", "beta"]),
        (set(), set(), []),
        ({"beta"}, set(), ["beta"]),
        (None, {"alpha"}, ["beta"]),
        ({"alpha", "beta"}, {"alpha"}, ["beta"]),
    ],
)
def test_operator_chooses_which_installed_plugins_load(
    registry: HookRegistry,
    install: Callable[..., None],
    heard: list[Any],
    allowed: set[str] | None,
    blocked: set[str],
    loaded: list[str],
) -> None:
    install(alpha=listener(heard, "alpha"), beta=listener(heard, "beta"))
    settings = Settings(
        hooks_allowed=None if allowed is None else frozenset(allowed),
        hooks_blocked=frozenset(blocked),
    )
    assert load_installed(registry, settings) == loaded


def test_plugin_that_was_asked_for_and_is_not_there_is_named(
    registry: HookRegistry, install: Callable[..., None], heard: list[Any], log: Any
) -> None:
    install(alpha=listener(heard, "alpha"))
    settings = Settings(hooks_allowed=frozenset({"alpha", "gone"}))
    assert load_installed(registry, settings) == ["alpha"]
    [warning] = log.messages
    assert "'gone'" in warning


@pytest.mark.parametrize(
    "broken",
    [
        ImportError("no module named torch2"),
        RuntimeError("at import"),
        SystemExit(1),
        _unknown_hook(),
        _wrong_argument(),
        _wrapper(),
    ],
    ids=["ImportError", "RuntimeError", "SystemExit", "unknown hook", "argument", "wrapper"],
)
def test_broken_package_is_skipped_by_name_and_the_others_load(
    registry: HookRegistry,
    install: Callable[..., None],
    heard: list[Any],
    log: Any,
    broken: Any,
) -> None:
    install(alpha=broken, beta=listener(heard, "beta"))
    assert load_installed(registry, Settings()) == ["beta"]
    [warning] = log.messages
    assert "'alpha'" in warning
    assert "installed_alpha" in warning
    registry.hooks.omni_request_arrived(ARRIVED)
    assert [name for name, _ in heard] == ["beta"]


def test_operators_interrupt_ends_the_loading(
    registry: HookRegistry, install: Callable[..., None]
) -> None:
    install(alpha=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        load_installed(registry, Settings())
