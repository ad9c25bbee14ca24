"""Hook plugins that are one file, named by its path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import HookRegistry, RequestFinished
from vllm_omni_metrics_plugin.hooks.loading import load_installed
from vllm_omni_metrics_plugin.settings import Settings, parse
from vllm_omni_metrics_plugin.testing import make_event

PLUGIN = """
from dataclasses import dataclass

from vllm_omni_metrics_plugin.hooks import hookimpl

ENDED = []

@dataclass
class Ended:  # which looks for its module
    outcome: "str"

@hookimpl
def omni_request_finished(event):
    ENDED.append(Ended(event.outcome))

class Many:
    def __init__(self):
        self.ended = []

    @hookimpl
    def omni_request_finished(self, event):
        self.ended.append(event.outcome)

many = Many()
"""


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No package is installed, and the plugins are in the folder of the process."""
    monkeypatch.setattr("vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda group: [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ended.py").write_text(PLUGIN)


def load(value: str) -> tuple[HookRegistry, list[str]]:
    registry = HookRegistry()
    return registry, load_installed(registry, parse({"VLLM_OMNI_METRICS_HOOKS": value}))


@pytest.mark.parametrize("path", ["./ended.py", "ended.py", "~/ended.py", "{folder}/ended.py"])
def test_file_is_a_plugin_of_its_name(path: str, tmp_path: Path, log: Any) -> None:
    registry, loaded = load(path.format(folder=tmp_path))
    assert loaded == ["ended"]
    registry.hooks.omni_request_finished(make_event(RequestFinished, outcome="abort"))
    module = sys.modules["vllm_omni_metrics_plugin:ended"]
    assert [ended.outcome for ended in module.ENDED] == ["abort"]
    assert log.messages == []


def test_object_in_a_file_is_named_after_a_colon() -> None:
    registry, loaded = load("./ended.py:many")
    assert loaded == ["ended"]
    [listener] = registry.hooks.omni_request_finished.listeners
    many: Any = listener.function.__self__  # type: ignore[attr-defined]
    registry.hooks.omni_request_finished(make_event(RequestFinished, outcome="stop"))
    assert many.ended == ["stop"]


def test_folder_has_a_plugin_in_each_file_but_the_hidden_ones(tmp_path: Path, log: Any) -> None:
    folder = tmp_path / "hooks.d"
    folder.mkdir()
    for name in ("second.py", "first.py", "_shared.py", ".hidden.py", "notes.txt"):
        (folder / name).write_text(PLUGIN)
    assert load("./hooks.d")[1] == ["first", "second"]
    assert load("./hooks.d/")[1] == ["first", "second"]
    assert load("./hooks.d,-first")[1] == ["second"], "blocked by its name"
    assert log.messages == []


def test_file_takes_the_place_of_no_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(PLUGIN)
    import json

    assert load("./json.py")[1] == ["json"]
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("value", "text", "message"),
    [
        ("./gone.py", None, "FileNotFoundError: there is no such file"),
        ("./gone/", None, "FileNotFoundError: there is no such file"),
        ("./bad.txt", "", "ValueError: it is no file of Python, *.py"),
        ("./bad.py", "def", "SyntaxError"),
        ("./bad.py", "import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("./bad.py", "raise SystemExit(3)", "SystemExit: 3"),
        ("./bad.py:gone", "", "AttributeError: there is no gone in it"),
        (
            "./bad.py",
            "from vllm_omni_metrics_plugin.hooks import hookimpl\n"
            "@hookimpl\ndef omni_request_finish(event): ...",
            "there is no hook omni_request_finish; did you mean omni_request_finished?",
        ),
        (
            "./bad.py:Many",
            PLUGIN,
            "omni_request_finished is a method of the class Many; register an instance of it",
        ),
    ],
)
def test_file_that_cannot_be_loaded_gets_one_message_and_stops_nothing_else(
    value: str, text: str | None, message: str, tmp_path: Path, log: Any
) -> None:
    path = tmp_path / value.partition(":")[0]
    name = path.name.removesuffix(".py")
    if text is not None:
        path.write_text(text)
    assert load(f"{value},./ended.py")[1] == ["ended"]
    [warning] = log.messages
    assert warning.startswith(f"omni-metrics: hook plugin {name!r} ({path}) was skipped: ")
    assert message in warning


def test_file_that_failed_leaves_no_module_behind(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("1 / 0")
    load("./fails.py")
    assert "vllm_omni_metrics_plugin:fails" not in sys.modules


def test_folder_without_a_plugin_is_said(tmp_path: Path, log: Any) -> None:
    (tmp_path / "empty").mkdir()
    assert load("./empty")[1] == []
    [warning] = log.messages
    assert f"'empty' ({tmp_path}/empty) was skipped: FileNotFoundError: no *.py is in" in warning


def test_file_without_hooks_is_said_with_its_path(tmp_path: Path, log: Any) -> None:
    (tmp_path / "quiet.py").write_text("LIMIT = 1")
    load("./quiet.py")
    [warning] = log.messages
    assert warning.endswith(f"hook plugin 'quiet' ({tmp_path}/quiet.py) implements no hook")


def test_file_whose_hooks_are_in_a_class_is_told_to_name_an_instance(
    tmp_path: Path, log: Any
) -> None:
    text = PLUGIN.replace("@hookimpl\ndef", "def").replace("omni_request_finished(event)", "f(x)")
    (tmp_path / "classy.py").write_text(text)
    load("./classy.py")
    [warning] = log.messages
    assert "implements no hook; its class Many does" in warning
    assert "file.py:instance" in warning


def test_names_and_files_together_are_all_that_is_loaded() -> None:
    def wanted(value: str) -> Settings:
        return parse({"VLLM_OMNI_METRICS_HOOKS": value}, lambda warning: pytest.fail(warning))

    alone = wanted("./a.py")
    assert (alone.hooks_allowed, alone.hook_files) == (frozenset(), ("./a.py",))
    mixed = wanted("log, ./a.py ,~/b,-trace,./a.py,c.py,d.py:plugin,/e")
    assert mixed.hooks_allowed == frozenset({"log"})
    assert mixed.hook_files == ("./a.py", "~/b", "c.py", "d.py:plugin", "/e")
    assert mixed.hooks_blocked == frozenset({"trace"})
    beside = wanted("*,./a.py,-trace")
    assert (beside.hooks_allowed, beside.hook_files) == (None, ("./a.py",))
    assert not beside.allows_hooks_of("trace")
