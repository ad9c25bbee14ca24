"""The engine's own families left out of /metrics, and a doctor on a machine without the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.clients import audio
from testbed.server import Server
from tests.e2e.conftest import ON, OPENMETRICS, observing, outcomes, page
from vllm_omni_metrics_plugin import cli
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.scrape import scrape


@pytest.fixture(scope="module")
def server_without_natives(logs: Path) -> Iterator[Server]:
    env = {**ON, "VLLM_OMNI_METRICS_NATIVE": "0", "VLLM_OMNI_METRICS_EXPOSITION": "engine"}
    with Server("tts", env=env, log_path=logs / "natives.log") as server:
        yield server


def test_engines_own_families_are_gone_and_all_others_count(
    server_without_natives: Server,
) -> None:
    url = server_without_natives.url
    with observing(server_without_natives) as seen:
        answer = audio.speech(url, tokens=10)
    assert answer.status == 200
    assert sum(outcomes(seen.gained).values()) == 1
    assert seen.gained.sum("vllm:omni_audio_frames_total") == answer.samples
    assert seen.gained.sum("vllm:request_success_total") > 0
    assert scrape(url).names("vllm_omni:") == set()


def test_engine_answers_for_metrics_where_it_is_to(server_without_natives: Server) -> None:
    answer = page(server_without_natives.url, OPENMETRICS)
    assert answer.headers["content-type"].startswith("text/plain"), "all that its route knows"


def test_doctor_on_a_machine_without_the_engine_finds_the_server_well(
    server_without_natives: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(process, "installed_versions", dict)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    status = cli.main(["doctor", "--json", "--url", server_without_natives.url])
    report = json.loads(capsys.readouterr().out)
    assert (status, report["status"]) == (0, "good"), report["findings"]
    assert any("vllm-omni is not installed" in f["message"] for f in report["findings"])
    assert {patch["status"] for patch in report["patches"]} <= {
        *{"applied", "deferred", "not reported"},
    }
