"""The Pythons that the installer finds, by asking each what it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed.install import interpreters
from testbed.install.steps import StepFailedError

THIS = f"3.{sys.version_info.minor}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where there are interpreters."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("PYTHON", raising=False)
    return tmp_path


def put(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_first_version_of_those_that_there_are_is_chosen(folder: Path) -> None:
    put(folder / "python3.98", "echo 3.98")
    second = put(folder / "python3.99", "echo 3.99")
    assert interpreters.choose(["3.99", "3.98"]) == second


def test_interpreter_is_the_version_that_it_says_and_not_the_one_in_its_name(folder: Path) -> None:
    put(folder / "python3.99", "echo 3.97")
    put(folder / "python3.98", "echo pyenv: not installed >&2; exit 127")
    plain = put(folder / "python3", "echo 3.98")
    assert interpreters.choose(["3.99", "3.98"]) == plain
    assert interpreters.find("3.99") is None


def test_one_that_was_asked_for_is_the_only_one_that_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / "python3.99", "echo 3.99")
    put(folder / "mine", "echo 3.1")
    monkeypatch.setenv("PYTHON", "mine")
    with pytest.raises(StepFailedError, match=r"looked at: mine"):
        interpreters.choose(["3.99"])


def test_none_at_all_is_an_error_that_names_what_was_looked_at(folder: Path) -> None:
    with pytest.raises(StepFailedError, match=r"no Python 3\.99 .*: python3\.99 python3\)"):
        interpreters.choose(["3.99"])


def test_pyenvs_own_are_found_though_they_are_not_in_the_path(folder: Path) -> None:
    hidden = put(folder / "pyenv" / "versions" / "3.99.4" / "bin" / "python3.99", "echo 3.99")
    assert interpreters.find("3.99") == hidden


def test_a_real_one_says_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    assert interpreters.choose([THIS]) == sys.executable
