"""The test kit in a pytest of its own, as an author of hooks runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from testbed.pages.fences import blocks
from testbed.pages.places import DOCS


def pytest_in(folder: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_test_kit_does_what_its_page_shows(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(blocks(DOCS / "how-to" / "test-a-hook.md")["python"])
    assert "4 passed" in pytest_in(tmp_path)


def test_files_of_the_walk_pass_their_own_test(tmp_path: Path) -> None:
    files = blocks(DOCS / "tutorial" / "write-a-hook.md")
    assert list(files) == ["late_starts.py", "test_late_starts.py", "pyproject.toml"]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert "1 passed" in pytest_in(tmp_path)


def hooks_command(**environ: str) -> dict[str, list[str]]:
    """What ``vllm-omni-metrics hooks`` says of each plugin."""
    command = [sys.executable, "-m", "vllm_omni_metrics_plugin.cli", "hooks"]
    command += ["--url", "http://127.0.0.1:1"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )
    assert "late_starts" in done.stdout, done.stdout + done.stderr
    rows = done.stdout.split("\n\n")[1].splitlines()
    return {cells[0]: cells[1:] for cells in (re.split("  +", row) for row in rows)}


def test_file_of_the_walk_is_a_plugin_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "late_starts.py"
    file.write_text(blocks(DOCS / "tutorial" / "write-a-hook.md")["late_starts.py"])
    listed = hooks_command(VLLM_OMNI_METRICS_HOOKS=str(file))
    assert listed["late_starts"] == [str(file), "server", "no", "loaded"]


def test_package_of_the_walk_is_found_when_it_is_installed(tmp_path: Path) -> None:
    source, packages = tmp_path / "walk", tmp_path / "packages"
    source.mkdir()
    for name, content in blocks(DOCS / "tutorial" / "write-a-hook.md").items():
        (source / name).write_text(content)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(packages)]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    path = os.pathsep.join([str(packages), *filter(None, sys.path)])
    listed = hooks_command(PYTHONPATH=path, VLLM_OMNI_METRICS_HOOKS="late_starts")
    assert listed["late_starts"] == ["late-starts 0.1.0", "server", "no", "loaded"]


def test_pytest_finds_the_fixture_by_itself_and_pays_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_author.py").write_text(
        """
import sys

def test_nothing_is_imported_for_those_who_do_not_ask():
    assert "vllm_omni_metrics_plugin.hooks" not in sys.modules
    assert "prometheus_client" not in sys.modules

def test_fixture_is_there(omni_hooks):
    from vllm_omni_metrics_plugin.testing import Recorder, make_event, EVENTS
    heard = omni_hooks.register(Recorder())
    omni_hooks.fire(*map(make_event, EVENTS.values()))
    assert len(heard.events) == len(EVENTS)
"""
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
