"""The access log without an engine: what a line says, and how files rotate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import vllm_omni_access_log

from vllm_omni_metrics_plugin.hooks import (
    ImageFinished,
    RequestFinished,
    RequestJudged,
    StreamFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "access.jsonl"
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG", str(path))
    return path


@pytest.fixture
def log(omni_hooks: HookHarness, path: Path) -> Iterator[HookHarness]:
    """A server that writes to ``path``."""
    omni_hooks.register(vllm_omni_access_log)
    yield omni_hooks
    vllm_omni_access_log._file.cache_clear()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_line_holds_everything_about_a_request(log: HookHarness, path: Path) -> None:
    log.fire(*speech_request("mine", packets=3, replica=1, first_packet_seconds=0.25))
    [line] = lines(path)
    assert {*RequestFinished.__struct_fields__, "time"} == set(line)
    assert line["external_request_id"] == "mine"
    assert (line["endpoint"], line["transport"], line["status"]) == (
        *("/v1/audio/speech", "http"),
        200,
    )
    assert (line["outcome"], line["packets"]) == ("stop", 3)
    assert line["end_to_end_seconds"] == pytest.approx(0.85)
    assert line["queue_seconds"] == pytest.approx(0.01)
    assert [(s["stage"], s["replica"], s["tokens_out"]) for s in line["stages"]] == [
        (0, 0, 25),
        (1, 1, 25),
    ]
    [audio] = line["audio"]
    assert (audio["samples"], audio["first_packet_seconds"]) == (72_000, 0.25)
    assert audio["rtf"] == pytest.approx(0.84 / 3.0)
    assert not {"request_id", "model_name", "type"} & set(audio), "the line says it"
    assert datetime.fromisoformat(line["time"].replace("Z", "+00:00")).tzinfo is not None


def test_line_has_each_kind_of_media_the_listener_and_the_verdicts(
    log: HookHarness, path: Path
) -> None:
    video = make_event(VideoFinished)
    log.fire(
        make_event(
            RequestFinished,
            images=(make_event(ImageFinished, images=2),),
            videos=(video,),
            streams=(make_event(StreamFinished),),
            verdicts=(make_event(RequestJudged),),
        )
    )
    [line] = lines(path)
    assert line["images"][0]["images"] == 2
    assert line["videos"][0]["rtf"] == video.rtf
    for parts in ("images", "videos", "streams"):
        assert not {"request_id", "model_name", "type"} & set(line[parts][0]), "the line says it"
    assert line["streams"][0]["ending"] == "stalled"
    assert line["streams"][0]["players"][0]["stall_seconds"] == 0.4
    assert line["verdicts"] == [
        {"objective": "speech is prompt", "verdict": "bad", "broken": ["audio_ttfp_seconds"]}
    ]


@pytest.mark.parametrize("outcome", ["abort", "error", "rejected"])
def test_request_that_was_cut_short_has_its_line_too(
    log: HookHarness, path: Path, outcome: str
) -> None:
    log.fire(*speech_request(outcome=outcome, packets=1))
    [line] = lines(path)
    assert (line["outcome"], line["audio"], line["packets"]) == (outcome, [], 1)


def test_what_was_not_measured_is_null(log: HookHarness, path: Path) -> None:
    log.fire(make_event(RequestFinished, end_to_end_seconds=None))
    [line] = lines(path)
    for name in ("external_request_id", "endpoint", "status", "packets", "end_to_end_seconds"):
        assert line[name] is None, name
    assert line["stages"] == []


def test_line_is_the_event_again_for_who_reads_it_with_its_type(
    log: HookHarness, path: Path
) -> None:
    finished = speech_request("mine")[-1]
    log.fire(finished)
    [line] = lines(path)
    about = {"request_id": line["request_id"], "model_name": line["model_name"]}
    audio = [{"type": "AudioFinished", **about, **one} for one in line["audio"]]
    read = msgspec.convert({"type": "RequestFinished", **line, "audio": audio}, RequestFinished)
    assert read == finished


def test_files_rotate_without_losing_a_line_until_the_oldest_goes(
    log: HookHarness, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG_BYTES", "4000")
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG_FILES", "2")
    for n in range(20):
        log.fire(*speech_request(f"r{n}"))
    files = [path.with_name("access.jsonl.2"), path.with_name("access.jsonl.1"), path]
    assert sorted(path.parent.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 4000 for file in files)
    kept = [line["external_request_id"] for file in files for line in lines(file)]
    assert kept == [f"r{n}" for n in range(20 - len(kept), 20)]
    assert len(kept) > 3


def test_disk_that_refuses_is_the_dispatchers_to_count(
    log: HookHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG", str(tmp_path / "no" / "such" / "dir"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            log.fire(*speech_request())


def test_disk_that_is_full_is_the_dispatchers_to_count(
    log: HookHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG", "/dev/full")
    with pytest.raises(OSError, match="No space"):
        log.fire(*speech_request())
    vllm_omni_access_log._file().stream = None  # or it complains once more when it is closed


def test_bad_number_is_named_and_the_default_used(
    log: HookHarness,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("VLLM_OMNI_ACCESS_LOG_FILES", "many")
    log.fire(*speech_request())
    assert "VLLM_OMNI_ACCESS_LOG_FILES='many' is not a number above 0; 5 is used" in caplog.text
    assert len(lines(path)) == 1


def test_no_file_is_touched_before_a_request_ends(log: HookHarness, path: Path) -> None:
    log.fire(*speech_request()[:-1])
    assert not path.exists()
