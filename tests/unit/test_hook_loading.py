"""Finding and refusing hook plugins: what authors and operators are told when a name is wrong."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import Event, HookRegistry, MediaPacket, hookimpl
from vllm_omni_metrics_plugin.hooks.loading import load_installed
from vllm_omni_metrics_plugin.hooks.sources import SERVER_GROUP
from vllm_omni_metrics_plugin.settings import parse
from vllm_omni_metrics_plugin.testing import make_event


class Quiet:
    @hookimpl
    def omni_media_packet(self, event: Event) -> None: ...


class Misspelt:
    @hookimpl
    def omni_request_finish(self, event: Event) -> None: ...


class Strange:
    @hookimpl
    def xyzzy(self, event: Event) -> None: ...


class Misnamed:
    @hookimpl
    def omni_media_packet(self, packet: Event) -> None: ...


class Greedy:
    @hookimpl
    def omni_media_packet(self, event: Event, *, more: int) -> None: ...


class Async:
    @hookimpl
    async def omni_media_packet(self, event: Event) -> None: ...


class AsyncGenerator:
    @hookimpl
    async def omni_media_packet(self, event: Event) -> AsyncIterator[None]:
        yield


class Generator:
    @hookimpl
    def omni_media_packet(self, event: Event) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (Misspelt(), "there is no hook omni_request_finish; did you mean omni_request_finished?"),
        (Strange(), "there is no hook xyzzy"),
        (Misnamed(), "a hook takes one argument of this name: omni_media_packet(event)"),
        (Greedy(), "a hook takes one argument of this name: omni_media_packet(event)"),
        (Async(), "omni_media_packet is async, and hooks are called, not awaited"),
        (AsyncGenerator(), "omni_media_packet is async, and hooks are called, not awaited"),
        (Generator(), "omni_media_packet is a generator function"),
        (Quiet, "omni_media_packet is a method of the class Quiet; register an instance of it"),
    ],
    ids=lambda value: (
        "" if isinstance(value, str) else getattr(value, "__name__", str(type(value)))
    ),
)
def test_refusal_says_what_to_write_instead(plugin: object, sentence: str) -> None:
    with pytest.raises(ValueError, match="hook plugin 'mine' was not registered: ") as refused:
        HookRegistry().register(plugin, "mine")
    assert sentence in str(refused.value)


def test_refusal_names_every_mistake_at_once() -> None:
    class Mistaken(Misspelt, Async):
        pass

    with pytest.raises(ValueError, match=r"async.*; there is no hook omni_request_finish"):
        HookRegistry().register(Mistaken())


def test_hook_of_another_version_can_be_optional() -> None:
    class Ahead(Quiet):
        @hookimpl(optionalhook=True)
        def omni_of_next_year(self, event: Event) -> None: ...

    registry = HookRegistry()
    registry.register(Ahead())
    assert len(registry.hooks.omni_media_packet.listeners) == 1


def test_additional_arguments_with_defaults_are_fine() -> None:
    heard = []

    class More:
        @hookimpl
        def omni_media_packet(self, event: Any, note: str = "note") -> None:
            heard.append((event, note))

    registry = HookRegistry()
    registry.register(More())
    packet = make_event(MediaPacket)
    registry.hooks.omni_media_packet(packet)
    assert heard == [(packet, "note")]


def test_functions_that_were_not_marked_are_pointed_out(log: Any) -> None:
    class Forgetful(Quiet):
        def omni_request_finished(self, event: Event) -> None: ...

    HookRegistry().register(Forgetful(), "forgetful")
    [warning] = log.messages
    assert "'forgetful': omni_request_finished is not marked with @hookimpl" in warning


def test_plugin_without_any_hook_is_pointed_out(log: Any) -> None:
    HookRegistry().register(object(), "empty")
    [warning] = log.messages
    assert "'empty' implements no hook" in warning


def test_objects_without_a_name_of_their_own_are_called_after_their_class() -> None:
    registry = HookRegistry()
    assert [registry.register(Quiet()) for _ in range(3)] == ["Quiet", "Quiet-2", "Quiet-3"]
    registry.unregister("Quiet-2")
    assert registry.register(Quiet()) == "Quiet-2"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that a package with these hook plugins is installed."""

    def pretend(**plugins: object) -> None:
        module = ModuleType("installed_hooks")
        vars(module).update(plugins)
        monkeypatch.setitem(sys.modules, "installed_hooks", module)
        entries = [EntryPoint(name, f"installed_hooks:{name}", SERVER_GROUP) for name in plugins]
        monkeypatch.setattr(
            "vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda group: entries
        )

    return pretend


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (None, ["alpha", "beta", "gamma"]),
        ("", []),
        ("beta", ["beta"]),
        ("beta, gamma", ["beta", "gamma"]),
        ("-beta", ["alpha", "gamma"]),
        ("beta,gamma,-gamma", ["beta"]),
        ("-alpha,-beta,-gamma", []),
    ],
)
def test_variable_chooses_the_installed_plugins(
    install: Callable[..., None], value: str | None, loaded: list[str], log: Any
) -> None:
    install(alpha=Quiet(), beta=Quiet(), gamma=Quiet())
    environ = {} if value is None else {"VLLM_OMNI_METRICS_HOOKS": value}
    assert load_installed(HookRegistry(), parse(environ)) == loaded
    assert log.messages == []


def test_wrong_name_in_the_variable_gets_the_nearest_installed_one(
    install: Callable[..., None], log: Any
) -> None:
    install(access_log=Quiet())
    settings = parse({"VLLM_OMNI_METRICS_HOOKS": "acces-log,-acess_log"})
    assert load_installed(HookRegistry(), settings) == []
    assert len(log.messages) == 2
    for warning, name in zip(log.messages, ("acces-log", "acess_log"), strict=True):
        assert f"{name!r}" in warning
        assert "did you mean access_log?" in warning


def test_two_packages_with_one_name_do_not_replace_each_other(
    install: Callable[..., None], log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(twin=Quiet())
    entry = EntryPoint("twin", "installed_hooks:twin", SERVER_GROUP)
    other = EntryPoint("twin", "installed_hooks:Quiet", SERVER_GROUP)
    sys.modules["installed_hooks"].Quiet = Quiet()  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda group: [entry, other]
    )
    registry = HookRegistry()
    assert load_installed(registry, parse({})) == ["twin"]
    [warning] = log.messages
    assert "'twin' (installed_hooks:Quiet) was skipped" in warning
    assert "the name is taken" in warning
