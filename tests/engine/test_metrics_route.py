"""The engine's own routes to ``/metrics``, taken over in an application that it has set up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY, Counter
from vllm.entrypoints.serve.instrumentator.metrics import attach_router

from tests.openmetrics import strictly
from vllm_omni_metrics_plugin.exposition import Answers
from vllm_omni_metrics_plugin.patches import http
from vllm_omni_metrics_plugin.patches.state import EngineState

OPENMETRICS = b"application/openmetrics-text"
PATHS = ["/metrics", "/metrics/"]


@pytest.fixture(autouse=True)
def _counted() -> Iterator[None]:
    counter = Counter("vllm:test_route_total", "-")
    counter.inc(3)
    yield
    REGISTRY.unregister(counter)


@pytest.fixture(autouse=True)
def _wrapped(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    called = http.wrap_application(FastAPI.__call__, state)
    monkeypatch.setattr(FastAPI, "__call__", called)


@pytest.fixture
def application() -> FastAPI:
    """As the engine's server has it, before it starts."""
    app = FastAPI()
    attach_router(app)
    app.get("/health")(lambda: "well")
    return app


def begin(application: FastAPI) -> None:
    """Tell the application that its server starts, and at once that it ends."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None: ...

    asyncio.run(application({"type": "lifespan"}, receive, send))


def ask(application: FastAPI, path: str, accept: bytes = b"") -> tuple[dict[bytes, bytes], bytes]:
    """Headers and body of the answer."""
    scope = {
        **{"type": "http", "method": "GET", "path": path, "raw_path": path.encode()},
        **{"headers": [(b"accept", accept)], "query_string": b"", "root_path": ""},
        **{"scheme": "http", "http_version": "1.1", "server": ("test", 80), "client": ("c", 1)},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    start, *parts = sent
    assert start["status"] == 200
    return dict(start["headers"]), b"".join(part.get("body", b"") for part in parts)


@pytest.mark.parametrize("path", PATHS)
def test_both_paths_answer_as_they_are_asked(
    application: FastAPI, state: EngineState, path: str
) -> None:
    state.answers_for = Answers().application
    begin(application)
    headers, text = ask(application, path)
    assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE vllm:test_route_total counter\nvllm:test_route_total 3.0\n" in text
    headers, page = ask(application, path, OPENMETRICS)
    assert headers[b"content-type"].startswith(OPENMETRICS)
    assert b"# TYPE vllm:test_route counter\nvllm:test_route_total 3.0\n" in page
    names = {sample.name for sample in strictly(page)}
    assert {"vllm:test_route_total", "python_info", "process_start_time_seconds"} <= names
    assert ask(application, "/health")[1] == b'"well"'


@pytest.mark.parametrize("path", PATHS)
def test_one_of_several_servers_shows_what_all_have_written_and_no_more(
    state: EngineState,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    one = FastAPI()
    attach_router(one)
    state.answers_for = Answers().application
    begin(one)
    assert ask(one, path)[1] == b"", "nobody has written anything"


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_the_engines_where_it_is_to_answer(application: FastAPI, path: str) -> None:
    before = [route.app for route in application.routes if hasattr(route, "app")]
    begin(application)
    assert [route.app for route in application.routes if hasattr(route, "app")] == before
    assert b"vllm:test_route_total 3.0" in ask(application, path)[1]
