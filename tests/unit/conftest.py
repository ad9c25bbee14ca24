"""For unit tests alone: a clock that stands until it is moved, a server that shows one text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.unit.feed import Feed
from tests.unit.metrics_page import MetricsPage, building


class Clock:
    """Takes the place of the module ``time`` in the code under test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._wall = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self._wall

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def feed(hooks: Any) -> Feed:
    return Feed(hooks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing = Clock()
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.request.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.state.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.utterance.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.heard.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.executions.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.arrival.time", standing)
    for module in ("session", "speech", "turn"):
        monkeypatch.setattr(f"vllm_omni_metrics_plugin.sessions.{module}.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.patches.duplex.voice.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.exporters.prometheus.queues.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.exporters.prometheus.backlog.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.patches.schedulers.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.streamed_input.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.patches.generate.time", standing)
    return standing


@contextmanager
def serving(text: bytes, status: int = 200) -> Iterator[str]:
    """The address of a server with this on its ``/metrics``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # It looks this often whether it has been shut down, and every test waits for that.
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def metrics_page(
    expose: Callable[..., AbstractContextManager[Any]],
) -> Callable[[], AbstractContextManager[MetricsPage]]:
    """Makes a page of /metrics for the length of a with block; one at a time."""
    return lambda: building(expose)
