"""The engine's own bench client against our servers: what it measures is what they counted."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.bench import client as bench_client
from testbed.clients import audio
from testbed.server import Server, binary
from tests.e2e.conftest import Pause, is_idle, settled

#: On top of 10 %, for times: client, server and whatever else runs share two cores.
ALLOWANCE_SECONDS = 0.015
ATTEMPTS = 5

EXACT = (
    'requests_success_total{finished_reason=~"stop|length"}',
    "audio_frames_total",
    "audio_duration_seconds_sum",
)
TIMES = (
    "e2e_request_latency_seconds_mean",
    "e2e_request_latency_seconds_p50",
    "e2e_request_latency_seconds_p99",
    "audio_ttfp_seconds_mean",
    "audio_ttfp_seconds_p50",
    "audio_ttfp_seconds_p99",
    "audio_rtf_end_to_end",
)
#: Of the engine's RTF and ours, which here have nearly the same basis.
RTF_APART = 0.1

#: Of speech: the bench listens to nothing else.
LISTENING = tuple(f"audio_underrun_seconds_{end}" for end in ("mean", "p50", "p99"))

Bench = Callable[[Server, Path], None]


def bench_speech(server: Server, result: Path) -> None:
    bench_client.speech(server, result, prompts=6, tokens=24)


def bench_chat(server: Server, result: Path) -> None:
    bench_client.chat(server, result, prompts=4, tokens=16)


def compared(server: Server, bench: Bench, directory: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of the command for one run of the bench."""
    directory.mkdir()
    before, result = directory / "before.prom", directory / "result.json"
    settled(server, is_idle)
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
        before.write_bytes(response.read())
    bench(server, result)
    settled(server, is_idle)
    files = ["--bench", str(result), "--before", str(before)]
    command = [binary("vllm-omni-metrics"), "compare", *files, "--url", server.url, "--json"]
    ended = subprocess.run(
        [*command, "--allowance", str(ALLOWANCE_SECONDS)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not ended.stderr, ended.stderr
    answer = json.loads(ended.stdout)
    # The bench has said the same itself, under the same names.
    named = json.loads(result.read_text())["omni_metrics"]
    said = {f["figure"]: f["bench"] for f in answer["figures"] if f["bench"] is not None}
    assert {name: named.get(name) for name in said} == pytest.approx(said)
    return ended.returncode, answer


def assert_agree(
    server: Server, bench: Bench, directory: Path, rtf: str, times: tuple[str, ...] = TIMES
) -> dict[str, Any]:
    """Counts in every run, times in one of a few: a wrong server is wrong in each of them.

    Returns the figures of the run in which they agree, by their names.
    """
    apart = []
    for attempt in range(ATTEMPTS):
        status, answer = compared(server, bench, directory / str(attempt))
        said = json.dumps(answer, indent=1)
        figures = {figure["figure"]: figure for figure in answer["figures"]}
        assert {name: figures[name]["verdict"] for name in EXACT} == dict.fromkeys(EXACT, "agree")
        # Not every release of the bench says how many it has.
        completed = figures[EXACT[0]]["bench"]
        assert figures["audio_ttfp_seconds_count"]["server"] == completed, said
        assert not any(
            "could not measure" in note for f in answer["figures"] for note in f["notes"]
        )
        assert set(times) <= set(figures), said
        if status == 0 and abs(figures[rtf]["difference"]) <= RTF_APART:
            verdicts = {name: figures[name]["verdict"] for name in times}
            assert verdicts == dict.fromkeys(times, "agree")
            return figures
        apart.append(said)
    pytest.fail("\n".join(apart))


def test_bench_of_speech_measures_what_the_server_counted(
    speech_server: Server, tmp_path: Path, pause: Pause
) -> None:
    def bench_with_gaps(server: Server, result: Path) -> None:
        pause("0 1.5")  # once for each replica, so in two of the six responses
        bench_speech(server, result)

    for _ in range(2):  # the first request of each replica pays for things that no later one does
        audio.speech(speech_server.url)
    times = (*TIMES, *LISTENING)
    basis = "audio_rtf_end_to_end_mean"
    figures = assert_agree(speech_server, bench_with_gaps, tmp_path, basis, times)
    assert figures["audio_underrun_seconds_mean"]["server"] > 0.1
    continuous = figures["audio_continuous_share"]
    print(continuous)
    assert continuous["server"] < 1
    assert continuous["bench"] < 1


def test_bench_of_chat_measures_what_the_server_counted(
    chat_server: Server, tmp_path: Path
) -> None:
    audio.chat(chat_server.url, stream=True)
    assert_agree(chat_server, bench_chat, tmp_path, "audio_rtf_stream_mean")
