"""An engine that drifts: each seam's place gone, renamed or changed, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.engine.installed import SEAMS
from vllm_omni_metrics_plugin.hooks import PatchReported
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.seam import Seam, find
from vllm_omni_metrics_plugin.patches.state import EngineState

Drift = Callable[[Seam, type, str], None]

pytestmark = pytest.mark.usefixtures("_restored")


@pytest.fixture
def _restored(engine_modules: dict[str, ModuleType]) -> Iterator[None]:
    classes = [(seam.module, seam.attribute.split(".")[0]) for seam in SEAMS]
    before = {name: getattr(engine_modules[name[0]], name[1]) for name in classes}
    methods = [(*find(seam), vars(find(seam)[0])[find(seam)[1]]) for seam in SEAMS]
    yield
    for (module, name), cls in before.items():
        setattr(engine_modules[module], name, cls)
    for owner, method, original in methods:
        if vars(owner).get(method) is not original:
            setattr(owner, method, original)


def remove(seam: Seam, owner: type, method: str) -> None:
    delattr(owner, method)


def rename(seam: Seam, owner: type, method: str) -> None:
    setattr(owner, f"{method}_v2", vars(owner)[method])
    delattr(owner, method)


def change_the_form(seam: Seam, owner: type, method: str) -> None:
    if seam.form == "coroutine":
        setattr(owner, method, lambda self, *args, **kwargs: None)
    else:

        async def changed(self: Any, *args: Any, **kwargs: Any) -> None: ...

        setattr(owner, method, changed)


def change_the_parameters(seam: Seam, owner: type, method: str) -> None:
    forms: dict[str, Any] = {}
    first = "" if seam.form == "static function" else "self, "
    exec(_DRIFTED.format(first=first), forms)
    changed = forms[seam.form.replace(" ", "_")]
    kind = {"static function": staticmethod, "class function": classmethod}.get(seam.form)
    setattr(owner, method, changed if kind is None else kind(changed))


#: A method of each form whose parameters are not those of any seam.
_DRIFTED = """
def function({first}envelope): ...
def static_function({first}envelope): ...
def class_function({first}envelope): ...
def generator({first}envelope): yield
async def coroutine({first}envelope): ...
async def async_generator({first}envelope): yield
"""


def remove_the_class(seam: Seam, owner: type, method: str) -> None:
    delattr(sys.modules[seam.module], seam.attribute.split(".")[0])


DRIFTS: list[Drift] = [
    remove,
    rename,
    change_the_form,
    change_the_parameters,
    remove_the_class,
]


@pytest.mark.parametrize(
    ("drift", "seam"),
    [
        pytest.param(drift, seam, id=f"{drift.__name__}-{seam.name}")
        for drift in DRIFTS
        for seam in SEAMS
        # Some wrappers read no argument.
        if drift is not change_the_parameters or seam.leading or seam.keywords
    ],
)
def test_seam_that_drifted_is_skipped_and_said_and_the_others_work(
    state: EngineState, drift: Drift, seam: Seam, recorder: Any, log: Any
) -> None:
    owner, method = find(seam)
    drift(seam, owner, method)
    # A class that went takes all its seams along.
    gone = {
        other.name
        for other in SEAMS
        if (drift is remove_the_class and _class_of(other) == _class_of(seam)) or other == seam
    }
    patches = Patches(SEAMS, state)
    patches.install()
    try:
        said = {event.name: (event.status, event.reason) for event in recorder.of(PatchReported)}
        if said[seam.name][0] == "applied":
            assert drift in (remove, rename)
            assert _is_inherited(seam), "the parent's method is the seam then"
            gone.remove(seam.name)
        assert {name for name, (status, _) in said.items() if status == "applied"} == (
            {other.name for other in SEAMS} - gone
        ), said
        for name in gone:
            assert said[name][0] == "skipped", said[name]
            assert said[name][1], "why"
        told = f"skipped the patch {seam.name}:"
        warnings = [message for message in log.messages if told in message]
        assert len(warnings) == len(gone & {seam.name})
        if not warnings:
            return
        assert seam.target in warnings[0]
        assert all(family in warnings[0] for family in seam.families)
    finally:
        assert patches.revert() == []


def _is_inherited(seam: Seam) -> bool:
    class_name, method = seam.attribute.split(".")
    cls = getattr(sys.modules[seam.module], class_name)
    return any(method in vars(owner) for owner in cls.__mro__[:-1])


def _class_of(seam: Seam) -> str:
    return f"{seam.module}:{seam.attribute.split('.')[0]}"
