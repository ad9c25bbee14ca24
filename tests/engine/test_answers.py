"""A FastAPI application over the real ``AsyncOmni``: what is answered is what is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine import installed
from tests.engine.test_async_omni_generate import (
    Script,
    failing,
    params,
    serve,
    speak,
)
from vllm_omni_metrics_plugin.hooks import AudioFinished, RequestFinished

__all__ = ["serve"]
pytestmark = pytest.mark.usefixtures("seams")

Endpoint = Callable[[Any], Awaitable[Any]]


def generate(omni: Any, kind: str = "FINAL_ONLY", prompt: Any = "hello") -> AsyncIterator[Any]:
    outputs: AsyncIterator[Any] = omni.generate(
        prompt, request_id="speech", sampling_params_list=params(kind)
    )
    return outputs


def breaks(*_: Any) -> None:
    raise OSError("the encoder failed")


def speech_service(omni: Any) -> Any:
    """The real one with an encoder that breaks, and nothing of a model."""
    from vllm_omni.entrypoints.openai.serving_speech import OmniOpenAIServingSpeech

    service = object.__new__(OmniOpenAIServingSpeech)
    service.engine_client = omni
    service.create_audio = breaks

    async def prepared(*_: Any, **__: Any) -> Any:
        return "speech", generate(omni), {}

    service._prepare_speech_generation = prepared
    service._validate_tts_generation = lambda *_: None
    service._audio_encode_speed = lambda _: 1.0
    service._get_tts_adapter = lambda: None
    service._tts_model_type = None
    service._request_ref_audio_artifact_keys = {}
    service._speech_output_policies = {}
    return service


SPEECH = SimpleNamespace(
    sample_rate=None, response_format="wav", word_timestamps=False, speed=1.0, stream=False
)


async def whole(omni: Any) -> Any:
    return len([output async for output in generate(omni)])


async def bad_prompt(omni: Any) -> Any:
    from fastapi import HTTPException

    try:
        return [output async for output in generate(omni, prompt=ValueError("too long"))]
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


async def nothing_in_it(omni: Any) -> Any:
    from fastapi.responses import JSONResponse

    await whole(omni)
    return JSONResponse({"error": "no audio"}, 400)


async def cannot_be_serialised(omni: Any) -> Any:
    await whole(omni)
    return object()


async def encoder_breaks(omni: Any) -> Any:
    return await speech_service(omni)._generate_audio_bytes(SPEECH)


async def item_of_a_batch_breaks(omni: Any) -> Any:
    with contextlib.suppress(OSError, ValueError):
        await encoder_breaks(omni)
    return "1 of 1 failed"


async def breaks_in_midstream(omni: Any) -> Any:
    from fastapi.responses import StreamingResponse

    async def chunks() -> AsyncIterator[bytes]:
        async for _ in generate(omni, "DELTA"):
            yield b"sound"
            breaks()

    return StreamingResponse(chunks())


async def streams(omni: Any) -> Any:
    from fastapi.responses import StreamingResponse

    async def chunks() -> AsyncIterator[bytes]:
        async for _ in generate(omni, "DELTA"):
            yield b"sound"

    return StreamingResponse(chunks())


@pytest.mark.parametrize(
    ("endpoint", "script", "status", "outcome"),
    [
        (whole, speak, 200, "length"),
        (streams, speak, 200, "length"),
        (bad_prompt, speak, 400, "rejected"),
        (nothing_in_it, speak, 400, "rejected"),
        (cannot_be_serialised, speak, 500, "error"),
        (encoder_breaks, speak, 500, "error"),
        (item_of_a_batch_breaks, speak, 200, "error"),
        (breaks_in_midstream, speak, 200, "error"),
        (whole, failing(fatal=True), 500, "error"),
        (streams, failing(), 200, "error"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("middleware", [False, True])
def test_outcome_is_what_the_client_was_answered(
    serve: Callable[..., Any],
    recorder: Any,
    endpoint: Endpoint,
    script: Script,
    status: int,
    outcome: str,
    middleware: bool,
) -> None:
    if endpoint in (encoder_breaks, item_of_a_batch_breaks) and installed.before("0.30.0"):
        pytest.skip("the service is put together as that of 0.30")
    answered: list[int] = []

    async def client(omni: Any) -> None:
        app = application(omni, endpoint, middleware=middleware)
        with contextlib.suppress(Exception):  # the HTTP server logs it
            await asyncio.wait_for(app(SCOPE.copy(), receive, send), 30)

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    serve(script, client)
    assert answered == [status]
    assert recorder.only(RequestFinished).outcome == outcome
    assert len(recorder.of(AudioFinished)) == (outcome == "length")


SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "raw_path": b"/",
    "root_path": "",
    "query_string": b"",
    "headers": [],
    "server": ("127.0.0.1", 80),
    "client": ("127.0.0.1", 1),
}


def application(omni: Any, endpoint: Endpoint, *, middleware: bool) -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/", response_model=None)
    async def call() -> Any:
        return await endpoint(omni)

    if middleware:

        @app.middleware("http")
        async def between(request: Any, call_next: Any) -> Any:
            return await call_next(request)

    return app
