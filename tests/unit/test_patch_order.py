"""We are not the only ones who patch: every order of their steps and ours, on every form of method.

Each history is a sequence of steps. Ours are apply and revert. The other patcher's are wrap and
unwrap; it may tell what it wraps or not, and may unwrap only what it finds on top or put back
blindly what it once saw. After each step one call shows who counts it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.seam import AppliedSeam, Form, Seam, apply
from vllm_omni_metrics_plugin.patches.state import EngineState

ENGINE = "patched_by_many"
FORMS: tuple[Form, ...] = (
    "function",
    "generator",
    "coroutine",
    "async generator",
    "static function",
    "class function",
)


def counting(original: Callable[..., Any], who: str, form: Form, tells: bool) -> Callable[..., Any]:
    """A wrapper of this form that adds its name to the list that every call is given."""
    wrapper: Callable[..., Any]
    if form == "coroutine":

        async def wrapper(self: Any, said: list[str]) -> Any:
            said.append(who)
            return await original(self, said)

    elif form == "async generator":

        async def wrapper(self: Any, said: list[str]) -> Any:
            said.append(who)
            async for part in original(self, said):
                yield part

    elif form == "generator":

        def wrapper(self: Any, said: list[str]) -> Any:
            said.append(who)
            yield from original(self, said)

    elif form == "static function":

        def wrapper(said: list[str]) -> Any:
            said.append(who)
            return original(said)

    else:

        def wrapper(self: Any, said: list[str]) -> Any:
            said.append(who)
            return original(self, said)

    return functools.wraps(original)(wrapper) if tells else wrapper


def engine_of(form: Form) -> type:
    """A fresh engine class with one method of this form; it notes that it was reached."""

    def body(said: list[str]) -> str:
        said.append("engine")
        return "answer"

    def function(self: Any, said: list[str]) -> str:
        return body(said)

    def generator(self: Any, said: list[str]) -> Iterator[str]:
        yield body(said)

    async def coroutine(self: Any, said: list[str]) -> str:
        return body(said)

    async def async_generator(self: Any, said: list[str]) -> Any:
        yield body(said)

    method: Any = {
        "function": function,
        "generator": generator,
        "coroutine": coroutine,
        "async generator": async_generator,
        "static function": staticmethod(body),
        "class function": classmethod(function),
    }[form]
    return type("Engine", (), {"method": method})


def bare(placed: Any) -> Any:
    return placed.__func__ if isinstance(placed, (staticmethod, classmethod)) else placed


def finish(awaitable: Any) -> Any:
    """The result of what never waits for anything."""
    try:
        awaitable.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def collect(parts: Any) -> list[Any]:
    return [part async for part in parts]


class Foreign(NamedTuple):
    """How the other patcher goes about it."""

    tells: bool
    blind: bool


class History:
    """One engine, what is done to it, and who counts a call of it."""

    def __init__(self, form: Form, foreign: Foreign) -> None:
        self.form = form
        self.foreign = foreign
        self.engine = engine_of(form)
        sys.modules[ENGINE].Engine = self.engine  # type: ignore[attr-defined]
        self.before = vars(self.engine)["method"]
        self.patches = Patches(
            [
                Seam(
                    name="place",
                    module=ENGINE,
                    attribute="Engine.method",
                    form=form,
                    wrap=lambda original, _: counting(original, "ours", form, True),
                    feeds=("audio_rtf",),
                    leading=("said",),
                )
            ],
            EngineState(HookRegistry().hooks),
        )
        #: What the other patcher put there, and what was there before.
        self.wraps: list[tuple[object, object]] = []

    def apply(self) -> None:
        self.patches.install()

    def revert(self) -> None:
        self.patches.revert()

    def wrap(self) -> None:
        seen = vars(self.engine)["method"]
        wrapper = counting(bare(seen), "theirs", self.form, self.foreign.tells)
        placed = type(seen)(wrapper) if bare(seen) is not seen else wrapper
        self.engine.method = placed  # type: ignore[attr-defined]
        self.wraps.append((placed, seen))

    def unwrap(self) -> None:
        placed, seen = self.wraps[-1]
        if self.foreign.blind or vars(self.engine)["method"] is placed:
            self.engine.method = seen  # type: ignore[attr-defined]
            self.wraps.pop()

    def call(self) -> Counter[str]:
        said: list[str] = []
        answer = self.engine().method(said)
        if self.form == "coroutine":
            answer = finish(answer)
        elif self.form == "async generator":
            [answer] = finish(collect(answer))
        elif self.form == "generator":
            [answer] = answer
        assert answer == "answer"
        return Counter(said)


FOREIGN = [Foreign(*how) for how in itertools.product((True, False), repeat=2)]
STEPS = ("apply", "revert", "wrap", "unwrap")


def is_possible(steps: tuple[str, ...]) -> bool:
    """Nobody unwraps more than he has wrapped."""
    wraps = itertools.accumulate({"wrap": 1, "unwrap": -1}.get(step, 0) for step in steps)
    return min(wraps) >= 0


#: Every order of up to five steps, a step as often as it may be, and of our two beside two wraps
#: of theirs.
HISTORIES = [
    steps
    for length in range(1, 6)
    for steps in itertools.product(STEPS, repeat=length)
    if is_possible(steps)
]
HISTORIES += sorted(
    {
        steps
        for steps in itertools.permutations(("apply", "revert", "apply", *("wrap", "unwrap") * 2))
        if is_possible(steps)
    }
)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ENGINE, ModuleType(ENGINE))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_no_order_of_patchers_counts_twice_or_loses_one_of_them(
    form: Form, foreign: Foreign
) -> None:
    for steps in HISTORIES:
        history = History(form, foreign)
        ours = lost = False
        for number, step in enumerate(steps, 1):
            theirs = len(history.wraps)
            getattr(history, step)()
            ours = {"apply": True, "revert": False}.get(step, ours)
            # What is put back blindly takes away whatever was put on top of it meanwhile.
            lost = (step == "unwrap" and foreign.blind) or (lost and step != "apply")
            theirs += {"wrap": 1, "unwrap": len(history.wraps) - theirs}.get(step, 0)
            counts = history.call()
            said = f"{' > '.join(steps[:number])}: {dict(counts)}"
            assert counts["engine"] == 1, said
            assert counts["theirs"] == theirs, said
            assert counts["ours"] <= ours if lost else counts["ours"] == ours, said
        history.apply()
        assert history.call()["ours"] == 1, f"{' > '.join(steps)} > apply"
        history.revert()
        assert history.call()["ours"] == 0, f"{' > '.join(steps)} > apply > revert"
        assert history.call()["theirs"] == len(history.wraps), steps


@pytest.mark.parametrize("form", FORMS)
def test_place_that_nobody_else_touched_is_left_as_it_was(form: Form) -> None:
    for steps in HISTORIES:
        if not {"wrap", "unwrap"} & set(steps):
            history = History(form, FOREIGN[0])
            for step in (*steps, "revert"):
                getattr(history, step)()
            assert vars(history.engine)["method"] is history.before, steps


def test_there_are_histories_of_every_kind() -> None:
    assert len(HISTORIES) == len(set(HISTORIES)) > 600
    assert ("apply", "wrap", "revert", "apply", "unwrap") in HISTORIES
    assert ("wrap", "apply", "wrap", "revert", "unwrap", "apply", "unwrap") in HISTORIES


def applied_to(history: History) -> AppliedSeam:
    history.apply()
    [applied] = history.patches._applied.values()
    return applied


@pytest.mark.parametrize("form", ["generator", "async generator"])
def test_call_that_has_begun_goes_on_as_it_began(form: Form) -> None:
    history = History(form, FOREIGN[0])
    applied = applied_to(history)
    said: list[str] = []
    parts = history.engine().method(said)
    first = next(parts) if form == "generator" else finish(parts.__anext__())
    assert applied.revert()
    assert first == "answer"
    assert said == ["ours", "engine"]
    if form == "async generator":
        assert finish(collect(parts)) == []


def test_reader_who_stops_early_closes_what_is_beneath_at_once() -> None:
    ended: list[str] = []

    class Engine:
        async def method(self) -> Any:
            try:
                yield 1
                yield 2
            finally:
                ended.append("closed")

    def passing(original: Callable[..., Any], _: object) -> Callable[..., Any]:
        @functools.wraps(original)
        async def method(self: Any) -> Any:
            parts = original(self)
            try:
                async for part in parts:
                    yield part
            finally:
                await parts.aclose()

        return method

    sys.modules[ENGINE].Engine = Engine  # type: ignore[attr-defined]
    place = Seam("early", ENGINE, "Engine.method", "async generator", passing, ("audio_rtf",))

    async def stop_early() -> list[str]:
        parts = Engine().method()
        assert await parts.__anext__() == 1
        await parts.aclose()
        return list(ended)  # a loop closes what was merely dropped, but later

    applied = apply(place, None)
    assert applied is not None
    assert asyncio.run(stop_early()) == ["closed"]
    applied.switch.off()
    assert asyncio.run(stop_early()) == ["closed", "closed"]
