"""Real servers, each started once per session and only when a test asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed.scrape import Scrape, scrape
from testbed.server import Server

ON = {"VLLM_OMNI_METRICS": "1"}


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def speech_server(logs: Path) -> Iterator[Server]:
    """Speech, two replicas of the second stage, the engine's own statistics as they come."""
    with Server("tts", replicas=2, env=ON, log_path=logs / "speech.log") as server:
        yield server


@pytest.fixture(scope="session")
def quiet_speech_server(logs: Path) -> Iterator[Server]:
    """Speech, one replica each, the engine's own statistics switched off."""
    with Server(
        "tts", env=ON, args=("--disable-log-stats",), log_path=logs / "quiet.log"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def chat_server(logs: Path) -> Iterator[Server]:
    """Chat that answers in text and audio: thinker, talker, code2wav."""
    with Server("omni", env=ON, log_path=logs / "chat.log") as server:
        yield server


@pytest.fixture(scope="session")
def mortal_server(logs: Path) -> Iterator[Server]:
    """Speech, two replicas, for tests that kill some of it."""
    with Server("tts", replicas=2, env=ON, log_path=logs / "mortal.log") as server:
        yield server


@pytest.fixture(scope="session")
def plain_server(logs: Path) -> Iterator[Server]:
    """Speech without the plugin's variable."""
    with Server("tts", log_path=logs / "plain.log") as server:
        yield server


def settled(server: Server, condition: Callable[[Scrape], bool], seconds: float = 10.0) -> Scrape:
    """The first scrape that meets ``condition``, or the last one taken within ``seconds``.

    A response ends for its client a moment before the engine has cleaned up behind it.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = scrape(server.url)
        if condition(seen) or time.monotonic() > deadline:
            return seen
        time.sleep(0.05)


def is_idle(seen: Scrape) -> bool:
    return (
        seen.sum("vllm:omni_num_requests_running") == 0
        and seen.sum("vllm:omni_num_requests_waiting") == 0
    )
