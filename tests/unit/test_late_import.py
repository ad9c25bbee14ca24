"""Being called back after an import that others make, and not being noticed while waiting."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import PatchReported
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.post_import import PostImports
from vllm_omni_metrics_plugin.patches.seams.seam import Seam
from vllm_omni_metrics_plugin.patches.state import EngineState


@pytest.fixture
def late() -> Iterator[PostImports]:
    waiting = PostImports()
    finders = list(sys.meta_path)
    yield waiting
    waiting.stop()
    assert sys.meta_path == finders, "nothing of ours stays among the finders"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes a module that can be imported, dots being folders."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write_module(name: str, source: str) -> None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()

    yield write_module
    for name in set(sys.modules) - known:
        if name.startswith("late_"):
            del sys.modules[name]


def test_callback_comes_once_right_after_the_import(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    write("late_engine", "import late_helper\nvalue = 1")
    write("late_helper", "")
    seen: list[int] = []
    late.wait_for("late_engine", lambda: seen.append(sys.modules["late_engine"].value))
    importlib.import_module("late_helper")
    assert seen == [], "other modules are none of its business"
    importlib.import_module("late_engine")
    assert seen == [1], "the module is complete by then"
    importlib.import_module("late_engine")
    del sys.modules["late_engine"]
    importlib.import_module("late_engine")
    assert seen == [1]


def test_all_who_wait_for_a_module_are_called_in_order(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    write("late_engine", "")
    seen: list[str] = []
    for name in ("first", "second"):
        late.wait_for("late_engine", functools.partial(seen.append, name))
    importlib.import_module("late_engine")
    assert seen == ["first", "second"]


def test_module_of_a_package_is_waited_for_by_its_full_name(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    write("late_package.__init__", "from late_package import stages")
    write("late_package.stages", "")
    seen: list[str] = []
    late.wait_for("late_package.stages", lambda: seen.append("stages"))
    late.wait_for("late_package", lambda: seen.append("package"))
    importlib.import_module("late_package.stages")
    assert seen == ["stages", "package"]


def test_module_sees_the_loader_it_would_see_without_us(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    source = "during = (__loader__, __spec__.loader)"
    write("late_engine", source)
    write("late_plain", source)
    late.wait_for("late_engine", lambda: None)
    engine: Any = importlib.import_module("late_engine")
    plain: Any = importlib.import_module("late_plain")
    loaders = (engine.__loader__, engine.__spec__.loader, *engine.during)
    assert {type(loader) for loader in loaders} == {SourceFileLoader}
    assert len(set(loaders)) == 1
    for attribute in ("__package__", "__path__", "__cached__"):
        assert hasattr(engine, attribute) == hasattr(plain, attribute)
    assert engine.__file__ == engine.__spec__.origin == plain.__file__.replace("plain", "engine")
    assert engine.__spec__.loader.get_source("late_engine") == source


def test_waiting_stands_first_and_leaves_when_everything_came(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    write("late_one", "")
    write("late_two", "")
    finders = list(sys.meta_path)
    for name in ("late_one", "late_two"):
        late.wait_for(name, lambda: None)
    assert sys.meta_path == [late, *finders]
    importlib.import_module("late_one")
    assert sys.meta_path == [late, *finders]
    importlib.import_module("late_two")
    assert sys.meta_path == finders


def test_after_stop_nothing_is_called_back(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    write("late_engine", "")
    seen: list[str] = []
    late.wait_for("late_engine", lambda: seen.append("called"))
    late.stop()
    importlib.import_module("late_engine")
    assert seen == []


def test_module_that_does_not_exist_fails_as_usual_and_is_still_waited_for(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    seen: list[str] = []
    late.wait_for("late_engine", lambda: seen.append("called"))
    with pytest.raises(ModuleNotFoundError, match="late_engine"):
        importlib.import_module("late_engine")
    assert seen == []
    write("late_engine", "")
    importlib.import_module("late_engine")
    assert seen == ["called"]


def test_module_that_fails_raises_its_own_error_and_is_called_back_when_it_succeeds(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    seen: list[str] = []
    write("late_engine", "import sys\nif not hasattr(sys, 'late_ready'): raise KeyError('early')")
    late.wait_for("late_engine", lambda: seen.append("called"))
    with pytest.raises(KeyError, match="early"):
        importlib.import_module("late_engine")
    assert seen == []
    assert "late_engine" not in sys.modules
    try:
        sys.late_ready = True  # type: ignore[attr-defined]
        importlib.import_module("late_engine")
    finally:
        del sys.late_ready  # type: ignore[attr-defined]
    assert seen == ["called"]


def test_asking_whether_a_module_exists_does_not_use_up_its_callback(
    late: PostImports, write: Callable[[str, str], None]
) -> None:
    seen: list[str] = []
    write("late_engine", "")
    late.wait_for("late_engine", lambda: seen.append("called"))
    # What libraries do to find out which optional parts are installed.
    assert importlib.util.find_spec("late_engine") is not None
    assert seen == []
    importlib.import_module("late_engine")
    assert seen == ["called"]


def test_callback_that_raises_breaks_neither_the_import_nor_the_other_callbacks(
    late: PostImports, write: Callable[[str, str], None], log: Any
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    seen: list[str] = []
    write("late_engine", "value = 1")
    late.wait_for("late_engine", broken)
    late.wait_for("late_engine", lambda: seen.append("called"))
    assert importlib.import_module("late_engine").value == 1
    assert seen == ["called"]
    [record] = log.records
    assert record.exc_info[0] is RuntimeError


def test_seam_of_a_late_module_is_deferred_then_applied_exactly_once(
    state: EngineState, write: Callable[[str, str], None], recorder: Any
) -> None:
    wrapped: list[object] = []

    def wrap(original: Callable[..., Any], _: object) -> Callable[..., Any]:
        wrapped.append(original)
        return lambda self: original(self) + "!"

    write("late_engine", "class Engine:\n    def speak(self): return 'hello'")
    seam = Seam("late", "late_engine", "Engine.speak", "function", wrap, feeds=("audio_rtf",))
    finders = list(sys.meta_path)
    patches = Patches([seam], state)
    patches.install()
    assert recorder.only(PatchReported).status == "deferred"
    assert wrapped == []

    engine = importlib.import_module("late_engine")
    assert engine.Engine().speak() == "hello!"
    assert [event.status for event in recorder.of(PatchReported)] == ["deferred", "applied"]
    assert len(wrapped) == 1
    assert patches.revert() == []
    assert engine.Engine().speak() == "hello"
    assert sys.meta_path == finders


def test_revert_stops_waiting_for_modules_that_never_came(
    state: EngineState, write: Callable[[str, str], None], recorder: Any
) -> None:
    write("late_engine", "class Engine:\n    def speak(self): return 'hello'")
    finders = list(sys.meta_path)
    patches = Patches(
        [Seam("late", "late_engine", "Engine.speak", "function", lambda original, _: original, ())],
        state,
    )
    patches.install()
    assert patches.revert() == []
    assert sys.meta_path == finders
    importlib.import_module("late_engine")
    assert [event.status for event in recorder.of(PatchReported)] == ["deferred"]


def test_late_module_that_does_not_fit_is_reported_and_imported(
    state: EngineState, write: Callable[[str, str], None], recorder: Any
) -> None:
    write("late_engine", "value = 1")
    patches = Patches(
        [Seam("late", "late_engine", "Engine.speak", "function", lambda original, _: original, ())],
        state,
    )
    patches.install()
    assert importlib.import_module("late_engine").value == 1
    assert [event.status for event in recorder.of(PatchReported)] == ["deferred", "skipped"]
    assert patches.revert() == []
