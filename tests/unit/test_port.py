"""The port of its own for /metrics: what it answers, and what happens where it cannot be opened."""

from __future__ import annotations

import gzip
import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from vllm_omni_metrics_plugin.exposition import Answers, Port, port
from vllm_omni_metrics_plugin.exposition.scrapes import Scrapes

SECONDS = 60.0


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    shown = CollectorRegistry()
    Counter("vllm:c", "-", registry=shown).inc()
    monkeypatch.setattr(port, "shown", lambda: shown)
    return shown


@pytest.fixture
def opened(registry: CollectorRegistry) -> Iterator[int]:
    """The number of a port that is open."""
    server = Port(0, Answers())
    server.open()
    assert server._server is not None
    yield server._server.server_port
    server.close()


def ask(number: int, path: str, method: str = "GET", **headers: str) -> tuple[Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?x=1"])
def test_port_answers_on_both_paths(opened: int, registry: CollectorRegistry, path: str) -> None:
    answer, body = ask(opened, path)
    assert (answer.status, body) == (200, generate_latest(registry))
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_port_gives_what_is_asked_for(opened: int, registry: CollectorRegistry) -> None:
    wishes = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
    answer, body = ask(opened, "/metrics", **wishes)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert gzip.decompress(body).endswith(b"# EOF\n")
    assert int(answer.headers["content-length"]) == len(body)
    answer, body = ask(opened, "/metrics", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert ask(opened, "/v1/models")[0].status == 404
    assert ask(opened, "/metrics", "POST")[0].status == 501


def test_port_says_that_a_page_cannot_be_had(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(Scrapes, "ask", fails)
    assert ask(opened, "/metrics")[0].status == 500


def test_port_that_is_taken_is_named_and_nothing_else_happens(
    registry: CollectorRegistry, log: Any
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        server = Port(number, Answers())
        server.open()
        server.close()
    [warning] = log.messages
    assert warning.startswith(f"omni-metrics: VLLM_OMNI_METRICS_PORT={number} cannot be opened")


def test_second_engine_of_a_process_opens_no_second_port(registry: CollectorRegistry) -> None:
    server = Port(0, Answers())
    server.open()
    first = server._server
    server.open()
    assert server._server is first
    server.close()


def test_port_is_free_again_once_it_is_closed(registry: CollectorRegistry, opened: int) -> None:
    server = Port(0, Answers())
    server.open()
    assert server._server is not None
    number = server._server.server_port
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(number, "/metrics")
