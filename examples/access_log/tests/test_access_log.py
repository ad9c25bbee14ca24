"""The access log without an engine: what a line says, and how files rotate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vllm_omni_access_log import AccessLog, plugin

from vllm_omni_metrics_plugin.hooks import RequestFinished
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_holds_everything_about_a_request(omni_hooks: HookHarness, path: Path) -> None:
    omni_hooks.register(AccessLog({"VLLM_OMNI_ACCESS_LOG": str(path)}))
    story = speech_request("mine", packets=3, samples=24_000, replica=1, first_packet_seconds=0.25)
    omni_hooks.fire(*story)

    [line] = lines(path)
    assert line["request_id"] == "mine"
    assert line["outcome"] == "stop"
    assert line["end_to_end_seconds"] == pytest.approx(0.85)
    assert line["queue_seconds"] == pytest.approx(0.01)
    assert line["packets"] == 3
    assert [(s["stage"], s["replica"], s["tokens_out"]) for s in line["stages"]] == [
        (0, 0, 25),
        (1, 1, 25),
    ]
    assert line["stages"][1]["submitted_seconds"] == pytest.approx(0.01)
    [audio] = line["audio"]
    assert audio["samples"] == 72_000
    assert audio["first_packet_seconds"] == 0.25
    assert audio["rtf"] == pytest.approx(0.84 / 3.0)


def test_requests_that_overlap_are_kept_apart(omni_hooks: HookHarness, path: Path) -> None:
    omni_hooks.register(AccessLog({"VLLM_OMNI_ACCESS_LOG": str(path)}))
    one, other = speech_request("one", packets=2), speech_request("other", packets=2)
    for pair in zip(one, other, strict=True):
        omni_hooks.fire(*pair)
    assert [(line["request_id"], line["packets"]) for line in lines(path)] == [
        ("one", 2),
        ("other", 2),
    ]


@pytest.mark.parametrize("outcome", ["abort", "error", "rejected"])
def test_request_that_was_cut_short_has_its_line_too(
    omni_hooks: HookHarness, path: Path, outcome: str
) -> None:
    log = omni_hooks.register(AccessLog({"VLLM_OMNI_ACCESS_LOG": str(path)}))
    omni_hooks.fire(*speech_request(outcome=outcome, packets=1))
    [line] = lines(path)
    assert (line["outcome"], line["audio"], line["packets"]) == (outcome, [], 1)
    assert log._open == {}, "nothing of a request outlives it"


def test_end_of_a_request_whose_beginning_was_lost_says_null(
    omni_hooks: HookHarness, path: Path
) -> None:
    omni_hooks.register(AccessLog({"VLLM_OMNI_ACCESS_LOG": str(path)}))
    omni_hooks.fire(make_event(RequestFinished))
    [line] = lines(path)
    assert line["request_id"] is None
    assert line["stages"] == []


def test_files_rotate_without_losing_a_line_until_the_oldest_goes(
    omni_hooks: HookHarness, path: Path
) -> None:
    environ = {
        "VLLM_OMNI_ACCESS_LOG": str(path),
        "VLLM_OMNI_ACCESS_LOG_BYTES": "2000",
        "VLLM_OMNI_ACCESS_LOG_FILES": "2",
    }
    omni_hooks.register(AccessLog(environ))
    for n in range(20):
        omni_hooks.fire(*speech_request(f"r{n}"))
    files = [path.with_name("access.jsonl.2"), path.with_name("access.jsonl.1"), path]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 2000 for file in files)
    kept = [line["request_id"] for file in files for line in lines(file)]
    assert kept == [f"r{n}" for n in range(20 - len(kept), 20)]


def test_disk_that_refuses_is_the_dispatchers_to_count(
    omni_hooks: HookHarness, tmp_path: Path
) -> None:
    omni_hooks.register(AccessLog({"VLLM_OMNI_ACCESS_LOG": str(tmp_path / "no" / "such" / "dir")}))
    with pytest.raises(FileNotFoundError):
        omni_hooks.fire(*speech_request())


def test_bad_number_is_named_and_the_default_used(
    omni_hooks: HookHarness, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"VLLM_OMNI_ACCESS_LOG": str(path), "VLLM_OMNI_ACCESS_LOG_FILES": "many"}
    omni_hooks.register(AccessLog(environ))
    omni_hooks.fire(*speech_request())
    assert "VLLM_OMNI_ACCESS_LOG_FILES='many'" in caplog.text
    assert len(lines(path)) == 1


def test_installed_plugin_touches_no_file_before_a_request_ends(tmp_path: Path) -> None:
    assert plugin._file is None
