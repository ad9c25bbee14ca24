"""Without the variable, or with nothing to observe, the server is as it would be without us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.clients import audio
from testbed.clients.audio import Answer
from testbed.server import Server
from tests.e2e.conftest import ON, doctor
from vllm_omni_metrics_plugin.scrape import scrape


@pytest.fixture(scope="module")
def off_server(logs: Path) -> Iterator[Server]:
    with Server("tts", log_path=logs / "off.log") as server:
        yield server


def test_no_family_and_no_word_of_the_plugin_without_the_variable(off_server: Server) -> None:
    answer: Answer = audio.speech(off_server.url, stream="audio")

    assert answer.status == 200
    assert not scrape(off_server.url).names("vllm:omni_")
    assert "omni-metrics" not in off_server.log_path.read_text()


def test_doctor_says_that_the_server_runs_without_the_plugin(off_server: Server) -> None:
    status, report = doctor(off_server)

    assert status == 2
    [broken] = [finding for finding in report["findings"] if finding["severity"] == "broken"]
    assert broken["check"] == "server"
    assert off_server.url in broken["message"]


@pytest.fixture
def vllm_omni_hidden(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that makes Python believe vllm-omni was never installed."""
    (tmp_path / "sitecustomize.py").write_text(
        """
import importlib.abc
import importlib.metadata
import sys

NAMES = ("vllm_omni", "vllm-omni", "vllm_omni_cpu", "vllm-omni-cpu")


class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


sys.meta_path.insert(0, Hide())
found = importlib.metadata.MetadataPathFinder.find_distributions
importlib.metadata.MetadataPathFinder.find_distributions = classmethod(
    lambda cls, *args, **kwargs: (
        one for one in found(*args, **kwargs) if one.name not in NAMES
    )
)
"""
    )
    return tmp_path


def test_plain_vllm_server_runs_unharmed_with_one_line(logs: Path, vllm_omni_hidden: Path) -> None:
    hidden = {**ON, "PYTHONPATH": str(vllm_omni_hidden)}
    with Server("llm", env=hidden, log_path=logs / "plain.log") as server:
        answer = audio.complete(server.url)
        families = scrape(server.url).names("vllm:")
        log = server.log_path.read_text()

    assert answer.status == 200
    assert "vllm:num_requests_running" in families
    assert not {name for name in families if name.startswith("vllm:omni_")}
    lines = [line for line in log.splitlines() if "omni-metrics" in line]
    assert len(lines) == 1, lines
    assert "vllm-omni is not installed" in lines[0]
