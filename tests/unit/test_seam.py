"""Wrapping a method of the engine: what fits is wrapped once, what does not is left as it was."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import PatchReported
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.seam import MARK, Seam, SeamMismatchError, apply
from vllm_omni_metrics_plugin.patches.state import EngineState

ENGINE = "synthetic_engine"


class Base:
    def plain(self, prompt: str, request_id: str = "", *, replica_id: int = 0) -> str:
        return f"{prompt} {request_id} {replica_id}"

    @staticmethod
    def bare(prompt: str) -> str:
        return prompt

    def inherited(self, prompt: str) -> str:
        return prompt


class Engine(Base):
    async def waits(self, prompt: str) -> str:
        await asyncio.sleep(0)
        return prompt

    async def yields(self, prompt: str) -> AsyncGenerator[str, None]:
        yield prompt
        yield prompt

    @property
    def computed(self) -> str:
        return "computed"

    @classmethod
    def made(cls, prompt: str) -> str:
        return prompt

    value = 1


def exclaim(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """A wrapper for plain and static functions that shows it was called."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) + "!"

    return wrapper


def exclaim_later(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    @functools.wraps(original)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await original(*args, **kwargs) + "!"

    return wrapper


def exclaim_each(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    @functools.wraps(original)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async for part in original(*args, **kwargs):
            yield part + "!"

    return wrapper


def seam(attribute: str, form: Any = "function", wrap: Any = exclaim, **more: Any) -> Seam:
    return Seam(
        name=more.pop("name", attribute),
        module=ENGINE,
        attribute=attribute,
        form=form,
        wrap=wrap,
        feeds=("audio_rtf",),
        **more,
    )


PLAIN = seam("Engine.plain", leading=("prompt", "request_id"), keywords=("replica_id",))
BARE = seam("Engine.bare", "static function", leading=("prompt",))
WAITS = seam("Engine.waits", "coroutine", exclaim_later, leading=("prompt",))
YIELDS = seam("Engine.yields", "async generator", exclaim_each, leading=("prompt",))
INHERITED = seam("Engine.inherited", leading=("prompt",))
FITTING = [PLAIN, BARE, WAITS, YIELDS, INHERITED]


def attributes() -> dict[tuple[str, str], object]:
    """Every attribute of the synthetic engine, to compare by identity."""
    return {
        (cls.__name__, name): value for cls in (Base, Engine) for name, value in vars(cls).items()
    }


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The synthetic engine as an imported module; put back as it was afterwards."""
    module = ModuleType(ENGINE)
    module.Engine = Engine  # type: ignore[attr-defined]
    module.helper = len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, ENGINE, module)
    before = {cls: dict(vars(cls)) for cls in (Base, Engine)}
    yield module
    for cls, attributes in before.items():
        for name, value in vars(cls).copy().items():
            if name not in attributes:
                delattr(cls, name)
            elif value is not attributes[name]:
                setattr(cls, name, attributes[name])


async def _collect(parts: AsyncIterable[object]) -> list[object]:
    return [part async for part in parts]


def call(fitting: Seam) -> Any:
    method = getattr(Engine(), fitting.attribute.split(".")[1])
    result = method("hello")
    if inspect.isasyncgen(result):
        return asyncio.run(_collect(result))
    return asyncio.run(result) if inspect.iscoroutine(result) else result


@pytest.mark.parametrize("fitting", FITTING, ids=lambda fitting: fitting.attribute)
def test_each_form_of_method_is_wrapped_and_let_go(fitting: Seam) -> None:
    before, plain = attributes(), call(fitting)
    applied = apply(fitting, None)
    assert applied is not None
    wrapped = call(fitting)
    expected = [part + "!" for part in plain] if isinstance(plain, list) else plain + "!"
    assert wrapped == expected
    assert applied.revert()
    assert call(fitting) == plain
    assert attributes() == before
    assert all(value is before[key] for key, value in attributes().items()), "the identical objects"


@pytest.mark.parametrize("fitting", FITTING, ids=lambda fitting: fitting.attribute)
def test_wrapped_method_looks_like_the_original(fitting: Seam) -> None:
    method = fitting.attribute.split(".")[1]
    original = getattr(Engine, method)
    applied = apply(fitting, None)
    wrapper = getattr(Engine, method)
    assert applied is not None
    assert wrapper is not original
    assert inspect.unwrap(wrapper) is original
    assert inspect.signature(wrapper) == inspect.signature(original)
    assert inspect.isasyncgenfunction(wrapper) == inspect.isasyncgenfunction(original)
    assert inspect.iscoroutinefunction(wrapper) == inspect.iscoroutinefunction(original)
    assert getattr(wrapper, MARK) == fitting.name


def test_inherited_method_is_wrapped_on_the_class_that_defines_it() -> None:
    apply(INHERITED, None)
    assert "inherited" not in vars(Engine)
    assert Base().inherited("hello") == "hello!", "copies of the base class see it too"


def test_static_function_stays_static() -> None:
    apply(BARE, None)
    assert isinstance(vars(Base)["bare"], staticmethod)
    assert Engine.bare("hello") == Engine().bare("hello") == "hello!"


@pytest.mark.parametrize("fitting", FITTING, ids=lambda fitting: fitting.attribute)
def test_second_apply_changes_nothing(fitting: Seam) -> None:
    apply(fitting, None)
    once = attributes()
    assert apply(fitting, None) is None
    assert all(value is once[key] for key, value in attributes().items())


def test_two_seams_on_one_method_are_both_applied() -> None:
    first, second = (replace(PLAIN, name=name) for name in ("first", "second"))
    assert apply(first, None) is not None
    assert apply(second, None) is not None
    assert apply(first, None) is None
    assert call(PLAIN) == "hello  0!!"


def foreign(original: Callable[..., Any]) -> Callable[..., Any]:
    """Somebody else's wrapper around the same method."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) + " (foreign)"

    return wrapper


def test_foreign_wrapper_beneath_ours_is_kept() -> None:
    Engine.plain = wrapped = foreign(Engine.plain)  # type: ignore[method-assign]
    applied = apply(PLAIN, None)
    assert call(PLAIN) == "hello  0 (foreign)!"
    assert applied is not None
    assert applied.revert()
    assert vars(Engine)["plain"] is wrapped


def test_foreign_wrapper_above_ours_survives_and_ours_counts_nothing_beneath_it() -> None:
    applied = apply(INHERITED, None)
    above = foreign(Base.inherited)
    Base.inherited = above  # type: ignore[method-assign]
    assert applied is not None
    assert not applied.revert()
    assert vars(Base)["inherited"] is above
    assert call(INHERITED) == "hello (foreign)"
    assert apply(INHERITED, None) is applied, "it counts again where it is"
    assert call(INHERITED) == "hello! (foreign)"
    assert apply(INHERITED, None) is None


MISFITS = [
    (seam("Gone.plain"), "no class Gone"),
    (seam("helper.plain"), "no class helper"),
    (seam("Engine.gone"), "no method Engine.gone"),
    (replace(PLAIN, form="coroutine"), "a function, not a coroutine"),
    (replace(PLAIN, form="static function"), "a function, not a static function"),
    (replace(WAITS, form="function"), "a coroutine, not a function"),
    (replace(YIELDS, form="coroutine"), "a async generator, not a coroutine"),
    (replace(BARE, form="function"), "a static function, not a function"),
    (replace(PLAIN, leading=("prompt", "params")), "parameters do not begin with prompt, params"),
    (replace(BARE, leading=("prompt", "params")), "parameters do not begin with prompt, params"),
    (replace(PLAIN, keywords=("replica_id", "lora")), "no parameter lora"),
]


@pytest.mark.parametrize(("misfit", "reason"), MISFITS, ids=[reason for _, reason in MISFITS])
def test_what_does_not_fit_is_left_as_it_was(misfit: Seam, reason: str) -> None:
    before = attributes()
    with pytest.raises(SeamMismatchError) as why:
        apply(misfit, None)
    assert str(why.value) == reason
    assert all(value is before[key] for key, value in attributes().items())


def test_misfit_beneath_a_foreign_wrapper_is_still_found_out() -> None:
    Engine.waits = foreign(Engine.waits)  # type: ignore[method-assign]
    with pytest.raises(SeamMismatchError, match="a coroutine, not a function"):
        apply(replace(WAITS, form="function"), None)
    with pytest.raises(SeamMismatchError, match="parameters do not begin with text"):
        apply(replace(WAITS, leading=("text",)), None)


# All seams of a process


def reports(recorder: Any) -> dict[str, tuple[str, str]]:
    return {event.name: (event.status, event.reason) for event in recorder.of(PatchReported)}


def test_misfits_are_reported_and_the_others_applied(
    state: EngineState, recorder: Any, log: Any
) -> None:
    misfit = replace(PLAIN, name="misfit", leading=("text",))
    patches = Patches(
        [misfit, BARE, replace(WAITS, name="other", form="function"), INHERITED], state
    )
    patches.install()
    assert reports(recorder) == {
        "misfit": ("skipped", "parameters do not begin with text"),
        "Engine.bare": ("applied", ""),
        "other": ("skipped", "a coroutine, not a function"),
        "Engine.inherited": ("applied", ""),
    }
    assert {event.target for event in recorder.of(PatchReported)} == {
        f"{ENGINE}:Engine.{method}" for method in ("plain", "bare", "waits", "inherited")
    }
    assert call(PLAIN) == "hello  0"
    assert call(BARE) == call(INHERITED) == "hello!"
    assert len(log.messages) == 2, "one warning for each"
    assert "misfit" in log.messages[0]
    assert "audio_rtf" in log.messages[0], "which says what will have no samples"


@pytest.mark.parametrize("attribute", ["Engine.computed", "Engine.made", "Engine.value"])
def test_attribute_that_is_no_method_is_never_wrapped(
    state: EngineState, recorder: Any, attribute: str
) -> None:
    before = attributes()
    Patches([seam(attribute, name="odd"), BARE], state).install()
    assert reports(recorder)["odd"][0] in ("skipped", "failed")
    assert reports(recorder)["Engine.bare"] == ("applied", "")
    assert all(value is before[key] for key, value in attributes().items() if key[1] != "bare")


def test_seam_whose_own_code_raises_is_reported_and_the_others_applied(
    state: EngineState, recorder: Any, log: Any
) -> None:
    def broken(original: Callable[..., Any], _: object) -> Callable[..., Any]:
        raise RuntimeError("broken")

    before = attributes()
    Patches([replace(PLAIN, wrap=broken), BARE], state).install()
    assert reports(recorder) == {
        "Engine.plain": ("failed", "RuntimeError"),
        "Engine.bare": ("applied", ""),
    }
    assert vars(Base)["plain"] is before["Base", "plain"]
    assert len(log.records) == 1


def test_install_twice_wraps_once_and_revert_lets_everything_go(
    state: EngineState, recorder: Any
) -> None:
    before = attributes()
    patches = Patches(FITTING, state)
    patches.install()
    once = attributes()
    patches.install()
    Patches(FITTING, state).install()
    assert all(value is once[key] for key, value in attributes().items())
    assert {status for status, _ in reports(recorder).values()} == {"applied"}
    assert patches.revert() == []
    assert all(value is before[key] for key, value in attributes().items())


def test_order_of_the_seams_does_not_matter(state: EngineState) -> None:
    for seams in (FITTING, FITTING[::-1]):
        patches = Patches(seams, state)
        patches.install()
        assert call(PLAIN) == "hello  0!"
        assert call(YIELDS) == ["hello!", "hello!"]
        assert patches.revert() == []


def test_revert_names_what_it_could_not_undo_and_undoes_the_rest(state: EngineState) -> None:
    patches = Patches([BARE, INHERITED], state)
    patches.install()
    Base.inherited = foreign(Base.inherited)  # type: ignore[method-assign]
    assert patches.revert() == ["Engine.inherited"]
    assert call(BARE) == "hello"
    assert call(INHERITED) == "hello (foreign)"
