"""What watching the application costs: a streamed answer of a hundred parts, from inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from testbed.bench import Figure, SideBySide
from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.patches import http
from vllm_omni_metrics_plugin.patches.state import EngineState

_PARTS = 100
_CALLS = 50


def figures(side_by_side: SideBySide) -> list[Figure]:
    state = EngineState(HookRegistry().hooks)
    app = FastAPI()

    async def speech() -> StreamingResponse:
        request = state.requests.begin("speech", "speech", "model", 0.0)
        http.attach(request, http.answering())

        async def sound() -> AsyncIterator[bytes]:
            for _ in range(_PARTS):
                yield b"sound"
            request.end(None)

        return StreamingResponse(sound())

    app.post("/v1/audio/speech")(speech)
    watched = http.wrap_application(FastAPI.__call__, state)
    loop = asyncio.new_event_loop()

    def asks(application: Callable[..., Any]) -> Callable[[], None]:
        def ask() -> None:
            loop.run_until_complete(_ask(app, application))
            state.requests.by_id.clear()

        return ask

    one, other = side_by_side(asks(watched), asks(FastAPI.__call__), _CALLS)
    loop.close()
    return [
        ("http_watched_vs_bare", one / other, "-", f"an answer of {_PARTS} parts, no network"),
        ("http_us_a_request", 1e6 * (one - other), "< 100", "the same, as a difference"),
    ]


async def _ask(app: FastAPI, application: Callable[..., Any]) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/audio/speech",
        "query_string": b"",
        "headers": [],
        "root_path": "",
    }
    asked = False
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    await application(app, scope, receive, send)
    answered.set()
