"""Each seam of the table, on the engine that is installed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.engine.installed import SEAMS
from vllm_omni_metrics_plugin.hooks import PatchReported
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.seam import MARK, Seam, apply, find
from vllm_omni_metrics_plugin.patches.state import EngineState


def places() -> dict[str, object]:
    found = {}
    for seam in SEAMS:
        owner, method = find(seam)
        found[seam.name] = vars(owner)[method]
    return found


def function(place: object) -> Any:
    return place.__func__ if isinstance(place, (staticmethod, classmethod)) else place


@pytest.fixture(autouse=True)
def _restored(engine_modules: dict[str, ModuleType]) -> Iterator[None]:
    before = {seam.name: (*find(seam), places()[seam.name]) for seam in SEAMS}
    yield
    for owner, method, original in before.values():
        if vars(owner)[method] is not original:
            setattr(owner, method, original)


each_seam = pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)


@each_seam
def test_seam_is_applied_to_the_real_engine_and_let_go(state: EngineState, seam: Seam) -> None:
    before = places()
    applied = apply(seam, state)
    assert applied is not None
    changed = {name for name, place in places().items() if place is not before[name]}
    assert changed == {seam.name}, "no other place is touched"
    assert applied.revert()
    assert all(place is before[name] for name, place in places().items()), "identical objects"


@each_seam
def test_wrapped_method_keeps_its_form_and_signature(state: EngineState, seam: Seam) -> None:
    original = places()[seam.name]
    apply(seam, state)
    placed = places()[seam.name]
    assert type(placed) is type(original), "static and class functions stay so"
    wrapper, wrapped = function(placed), function(original)
    assert getattr(wrapper, MARK) == seam.name
    assert inspect.unwrap(wrapper) is inspect.unwrap(wrapped)
    assert inspect.signature(wrapper) == inspect.signature(wrapped)
    for form in (inspect.isasyncgenfunction, inspect.iscoroutinefunction, inspect.isfunction):
        assert form(wrapper) == form(wrapped), form.__name__
    assert (wrapper.__name__, wrapper.__qualname__, wrapper.__module__, wrapper.__doc__) == (
        wrapped.__name__,
        wrapped.__qualname__,
        wrapped.__module__,
        wrapped.__doc__,
    )


@each_seam
def test_seam_applied_twice_wraps_once(state: EngineState, seam: Seam) -> None:
    apply(seam, state)
    once = places()
    assert apply(seam, state) is None
    assert all(place is once[name] for name, place in places().items())


@each_seam
def test_seam_beneath_a_foreign_wrapper_is_let_go_and_taken_up_again(
    state: EngineState, seam: Seam
) -> None:
    applied = apply(seam, state)
    assert applied is not None
    owner, method = find(seam)
    placed = places()[seam.name]

    @functools.wraps(function(placed))
    def foreign(*args: Any, **kwargs: Any) -> Any:
        return function(placed)(*args, **kwargs)

    kind: Any = type(placed)
    setattr(owner, method, kind(foreign) if function(placed) is not placed else foreign)
    assert not applied.revert()
    assert not applied.switch.is_on
    assert apply(seam, state) is applied, "no second wrapper on top"
    assert applied.switch.is_on
    assert function(places()[seam.name]) is foreign


@pytest.mark.parametrize("seams", [SEAMS, SEAMS[::-1]], ids=["in order", "reversed"])
def test_all_seams_are_applied_in_any_order_and_reverted(
    state: EngineState, recorder: Any, seams: tuple[Seam, ...]
) -> None:
    before = places()
    patches = Patches(seams, state)
    patches.install()
    assert {event.name: (event.status, event.reason) for event in recorder.of(PatchReported)} == {
        seam.name: ("applied", "") for seam in SEAMS
    }
    assert all(place is not before[name] for name, place in places().items())
    assert patches.revert() == []
    assert all(place is before[name] for name, place in places().items())
