"""What the example package writes of a server's requests, and what its client knows of them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from testbed.clients import audio, visual
from testbed.paths import EXAMPLES
from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import Scrape

Line = dict[str, Any]
_FILE = "VLLM_OMNI_ACCESS_LOG"
#: Samples that an endpoint cuts off the beginning of what leaves the engine, as no sound of speech.
CUT_OFF = {"/v1/video/chat/stream": 1_920}


def logging_requests(folder: Path, *packages: Path) -> dict[str, str]:
    """The environment of a server that writes its log there, with these ``packages`` besides."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, [*map(str, packages), inherited, str(EXAMPLES)]))
    return {
        "PYTHONPATH": path,
        "VLLM_OMNI_METRICS_HOOKS": "access_log",
        _FILE: str(folder / "access.jsonl"),
    }


def lines(server: Server) -> list[Line]:
    """Of all its requests so far."""
    file = Path(server.environment[_FILE])
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def await_lines(server: Server, before: int, count: int, seconds: float = 60.0) -> list[Line]:
    """Those since there were ``before``; they are written on a thread that nobody waits for."""
    deadline = time.monotonic() + seconds
    while len(lines(server)) < before + count and time.monotonic() < deadline:
        time.sleep(0.05)
    return lines(server)[before:]


def assert_log_agrees(
    gained: list[Line],
    where: tuple[str, str],
    answer: object,
    seen: Scrape,
) -> None:
    """What the lines say of requests that went ``where``, by transport and route.

    ``answer`` is what the client made of them, ``seen`` what the server's counts gained.
    """
    for line in gained:
        assert (line["transport"], line["endpoint"]) == where, line
        assert "everything" in [verdict["objective"] for verdict in line["verdicts"]]
        cut_short = line["outcome"] in ("abort", "error", "rejected")
        assert (line["failure"] is not None) == cut_short
        if cut_short:
            assert line["audio"] == line["images"] == line["videos"] == line["critical_path"] == []
    outcomes = Counter(line["outcome"] for line in gained)
    assert outcomes == seen.by("vllm:omni_requests_success_total", "finished_reason")
    assert_sums(gained, seen)
    if isinstance(answer, (audio.Answer, visual.Answer)):
        assert_answered(gained, where[0], answer)


def assert_sums(gained: list[Line], seen: Scrape) -> None:
    """The lines and the families are of the same events."""
    stages = [stage for line in gained for stage in line["stages"]]
    sounds = [sound for line in gained for sound in line["audio"]]
    pictures = [picture for line in gained for picture in line["images"]]
    films = [film for line in gained for film in line["videos"]]
    sums = {
        "audio_duration_seconds_sum": [sound["duration_seconds"] or 0.0 for sound in sounds],
        "audio_rtf_sum": [sound["rtf"] for sound in sounds if sound["rtf"] is not None],
        "image_num_total": [picture["images"] for picture in pictures],
        "video_rtf_sum": [film["rtf"] for film in films if film["rtf"] is not None],
        "e2e_request_latency_seconds_sum": [
            line["end_to_end_seconds"]
            for line in gained
            if line["outcome"] not in ("abort", "error", "rejected")
        ],
    }
    for family, values in sums.items():
        assert seen.sum(f"vllm:omni_{family}") == pytest.approx(sum(values), abs=1e-6), family
    if all(stage["execute_seconds"] is not None for stage in stages):
        executed = sum(stage["execute_seconds"] for stage in stages)
        told = seen.sum("vllm:omni_stage_execute_time_seconds_sum")
        assert told == pytest.approx(executed, abs=1e-6)


def assert_answered(
    gained: list[Line], transport: str, answer: audio.Answer | visual.Answer
) -> None:
    """One request, or one conversation, as its client saw it."""
    served = [line for line in gained if line["outcome"] in ("stop", "length")]
    is_whole = bool(served) and len(served) == len(gained)
    for line in gained:
        if transport != "http":
            assert line["status"] is None
        elif line["outcome"] != "abort":
            assert line["status"] == answer.status
    if not is_whole:
        return
    if isinstance(answer, visual.Answer):
        pixels = [size for line in served for made in line["images"] for size in made["pixels"]]
        assert Counter(pixels) == Counter(width * height for width, height in answer.sizes)
        assert sum(made["frames"] for line in served for made in line["videos"]) == answer.frames
        return
    samples = answer.samples + CUT_OFF.get(served[0]["endpoint"], 0)
    assert sum(made["samples"] for line in served for made in line["audio"]) == samples
    streams = [stream for line in served for stream in line["streams"]]
    for stream in streams:
        assert answer.sample_rate is not None
        seconds = samples / answer.sample_rate
        assert stream["players"][0]["played_seconds"] == pytest.approx(seconds)
    if answer.completion_tokens is not None:
        [first] = [line["stages"][0] for line in served]
        assert (first["tokens_in"], first["tokens_out"]) == (
            answer.prompt_tokens,
            answer.completion_tokens,
        )
