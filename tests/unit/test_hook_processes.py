"""Where hook implementations are called, and which processes import their plugins at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import Configured, HookRegistry, hookimpl, hookplugin
from vllm_omni_metrics_plugin.hooks.loading import left_to_the_server, load_installed
from vllm_omni_metrics_plugin.hooks.marks import PROCESSES, Process
from vllm_omni_metrics_plugin.hooks.sources import SERVER_GROUP, STAGE_GROUP
from vllm_omni_metrics_plugin.settings import parse
from vllm_omni_metrics_plugin.testing import make_event


def called_in(plugin: object) -> dict[str, list[Process]]:
    """By hook, the processes in which a plugin is called."""
    found: dict[str, list[Process]] = {}
    for process in PROCESSES:
        registry = HookRegistry()
        registry.process = process
        registry.register(plugin)
        for name, hook in vars(registry.hooks).items():
            if hook.listeners:
                found.setdefault(name, []).append(process)
    return found


def test_implementation_is_for_the_server_unless_it_asks_for_more() -> None:
    class Usual:
        @hookimpl
        def omni_configured(self, event: Any) -> None: ...

        @hookimpl(processes="worker")
        def omni_patch_reported(self, event: Any) -> None: ...

        @hookimpl(processes=("server", "stage_engine"))
        def omni_engine_stats(self, event: Any) -> None: ...

        @hookimpl(slow=True)
        def omni_request_finished(self, event: Any) -> None: ...

    assert called_in(Usual()) == {
        "omni_configured": ["server"],
        "omni_patch_reported": ["worker"],
        "omni_engine_stats": ["server", "stage_engine"],
        "omni_request_finished": ["server"],
    }


@hookplugin(processes=("stage_engine", "worker"), slow=True)
class Everywhere:
    def __init__(self) -> None:
        self.roles: list[str] = []

    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        self.roles.append(event.role)

    @hookimpl(processes="server", slow=False)
    def omni_patch_reported(self, event: Any) -> None: ...


def test_class_says_it_for_its_methods_and_each_of_them_may_say_otherwise() -> None:
    assert called_in(Everywhere()) == {
        "omni_configured": ["stage_engine", "worker"],
        "omni_patch_reported": ["server"],
    }


def test_class_that_inherits_from_a_marked_one_is_marked() -> None:
    class Heir(Everywhere):
        @hookimpl
        def omni_events_dropped(self, event: Any) -> None: ...

    assert called_in(Heir())["omni_events_dropped"] == ["stage_engine", "worker"]


def test_whole_class_can_be_slow() -> None:
    @hookplugin(slow=True)
    class Writes:
        @hookimpl
        def omni_request_arrived(self, event: Any) -> None: ...

        @hookimpl(slow=False)
        def omni_request_finished(self, event: Any) -> None: ...

    registry = HookRegistry()
    registry.register(Writes())
    assert not registry.hooks.omni_request_arrived.listeners[0].inline
    assert registry.hooks.omni_request_finished.listeners[0].inline


def test_event_reaches_those_of_this_process_and_no_other() -> None:
    registry = HookRegistry()
    registry.process = "stage_engine"
    here, elsewhere = Everywhere(), ServerOnly()
    registry.register(here)
    registry.register(elsewhere)
    registry.hooks.omni_configured(make_event(Configured, role="stage_engine"))
    assert registry.flush()
    assert (here.roles, elsewhere.calls) == (["stage_engine"], 0)
    assert {stats.plugin for stats in registry.stats()} == {"Everywhere"}


class ServerOnly:
    def __init__(self) -> None:
        self.calls = 0

    @hookimpl
    def omni_configured(self, event: Any) -> None:
        self.calls += 1


def test_plugin_without_anything_for_its_process_is_said(log: Any) -> None:
    registry = HookRegistry()
    registry.process = "worker"
    registry.register(ServerOnly(), "mine")
    assert "'mine' implements no hook for this process (worker)" in log.messages[0]


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ("stage", "there is no process 'stage'; did you mean stage_engine?"),
        (("server", "xyzzy"), "no process 'xyzzy'; there are server, stage_engine, worker"),
        ((), "processes is empty; name one or more of server, stage_engine, worker"),
    ],
)
@pytest.mark.parametrize("marker", [hookimpl, hookplugin])
def test_process_that_there_is_not_is_refused_with_those_that_there_are(
    marker: Any, processes: Any, message: str
) -> None:
    with pytest.raises(ValueError, match="process") as refused:
        marker(processes=processes)
    assert message in str(refused.value)


# What is imported


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that packages with these entry points are installed, by group."""

    def pretend(server: dict[str, object], stages: dict[str, object] | None = None) -> None:
        module = ModuleType("installed_in_processes")
        vars(module).update({**server, **(stages or {})})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        groups = {
            group: [EntryPoint(name, f"{module.__name__}:{name}", group) for name in plugins]
            for group, plugins in ((SERVER_GROUP, server), (STAGE_GROUP, stages or {}))
        }
        monkeypatch.setattr(
            "vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda group: groups[group]
        )

    return pretend


def load_in(process: Process, value: str | None = None) -> list[str]:
    registry = HookRegistry()
    registry.process = process
    environ = {} if value is None else {"VLLM_OMNI_METRICS_HOOKS": value}
    return load_installed(registry, parse(environ))


@pytest.mark.parametrize(
    ("process", "loaded"),
    [("server", ["a", "both"]), ("stage_engine", ["both", "z"]), ("worker", ["both", "z"])],
)
def test_process_loads_its_own_entry_points(
    install: Callable[..., None], process: Process, loaded: list[str]
) -> None:
    both = Everywhere()
    install({"a": ServerOnly(), "both": both}, {"both": both, "z": Everywhere()})
    assert load_in(process) == loaded


def test_operators_choice_holds_in_every_process(install: Callable[..., None], log: Any) -> None:
    both = Everywhere()
    install({"a": ServerOnly(), "both": both}, {"both": both, "z": Everywhere()})
    assert load_in("worker", "-both") == ["z"]
    assert load_in("worker", "a") == []
    assert load_in("server", "a,z") == ["a"]
    assert log.messages == [], "z is one that is installed"


def test_stages_do_without_files(install: Callable[..., None], log: Any) -> None:
    install({})
    assert load_in("stage_engine", "./no/such/file.py") == []
    assert log.messages == []


def test_implementation_for_a_process_that_does_not_load_it_is_said(
    install: Callable[..., None], log: Any
) -> None:
    install({"mine": Everywhere()})
    assert load_in("server") == ["mine"]
    [warning] = log.messages
    assert "'mine': omni_configured is for the process stage_engine and worker" in warning
    assert f"names it in the entry point group {STAGE_GROUP}, too" in warning


@pytest.mark.parametrize("asked", ["stage_engine", "worker"])
def test_plugin_of_0_1_for_the_stages_is_told_what_to_change(
    install: Callable[..., None], asked: str, log: Any
) -> None:
    class OneComparison:
        @hookimpl
        def omni_configured(self, event: Any) -> None:
            if event.role == "worker":
                self.opened = True

    class OneOfSeveral:
        @hookimpl
        def omni_configured(self, event: Any) -> None:
            if event.role in ("stage_engine", "worker"):
                self.opened = True

    old: dict[str, object] = {"worker": OneComparison(), "stage_engine": OneOfSeveral()}
    install({"old": old[asked]})
    assert load_in("server") == ["old"], "it works"
    [warning] = log.messages
    for words in ("'old'", "omni_configured", "@hookimpl(processes=...)", STAGE_GROUP):
        assert words in warning


def test_plugin_of_0_1_that_keeps_to_the_server_is_left_in_peace(
    install: Callable[..., None], log: Any
) -> None:
    class Careful:
        @hookimpl
        def omni_configured(self, event: Any) -> None:
            if event.role == "server":
                self.opened = True

    install({"careful": Careful()})
    assert load_in("server") == ["careful"]
    assert log.messages == []


def test_stages_know_what_is_left_to_the_server(install: Callable[..., None]) -> None:
    both = Everywhere()
    install({"a": ServerOnly(), "b": ServerOnly(), "both": both}, {"both": both})
    assert left_to_the_server(parse({"VLLM_OMNI_METRICS_HOOKS": "-b"})) == ["a"]
