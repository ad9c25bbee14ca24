"""The wrapper around the ASGI application: nobody can tell that it is there, and what it sees."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_client_patch import Engine, speech
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.patches import http
from vllm_omni_metrics_plugin.patches.diffusion.video_endpoint import wrap_generate_bytes
from vllm_omni_metrics_plugin.patches.generate import wrap_generate, wrap_request_id
from vllm_omni_metrics_plugin.patches.http import wrap_application, wrap_speech
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.patches.warmup import wrap_warmup
from vllm_omni_metrics_plugin.request_headers import CarriedHeader, RequestHeaders
from vllm_omni_metrics_plugin.requests import Exchange, OpenRequest


class EngineGenerateError(Exception):
    """Has the name of vLLM's."""


Endpoint = Callable[["Call"], Awaitable[None]]
REQUEST = {"type": "http.request", "body": b"{}", "more_body": False}
GONE = {"type": "http.disconnect"}
LAST = {"type": "http.response.body", "body": b"", "more_body": False}


def start(status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": []}


def body(data: object, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def event(text: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": text}


class Uvicorn:
    """As far as applications see it: whoever left is noticed while somebody receives."""

    def __init__(self, *messages: Any, websocket: bool = False) -> None:
        self.messages = list(messages)
        self.websocket = websocket
        self.left = asyncio.Event()
        self.sent: list[Any] = []
        self.received: list[Any] = []
        self.waiting = 0
        self.waiting_at_the_end: int | None = None

    async def receive(self) -> Any:
        if self.messages:
            message = self.messages.pop(0)
        else:
            self.waiting += 1
            try:
                await self.left.wait()
            finally:
                self.waiting -= 1
            message = {"type": "websocket.disconnect"} if self.websocket else GONE
        self.received.append(message)
        return message

    async def send(self, message: Any) -> None:
        if self.left.is_set():
            if self.websocket:
                raise ConnectionError("the client left")
            return  # it does not say
        self.sent.append(message)


class Application:
    """Calls the endpoint of a test; with a middleware between if it is asked to."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.endpoint(scope, receive, send)


class Call:
    """What an endpoint of a test works with."""

    def __init__(self, server: Uvicorn, scope: Any, receive: Any, send: Any) -> None:
        self.server = server
        self.scope = scope
        self.receive = receive
        self.send = send

    async def outputs(self, *script: Any, **kwargs: Any) -> list[Any]:
        generated = Engine(*script).generate("hello", None, "speech", **kwargs)
        return [output async for output in generated]

    async def answer(self, status: int = 200) -> None:
        await self.send(start(status))
        await self.send(LAST)

    async def leave(self) -> None:
        """The client leaves, and the event loop goes round."""
        self.server.left.set()
        await spin()


async def spin() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


ALL = (speech(480), speech(480, finished=True))


@pytest.fixture(autouse=True)
def _wrapped(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    wrap(monkeypatch, state)


def wrap(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    """The engine and the application, as in a server."""
    new_id = wrap_request_id(Engine._get_unique_request_id, state)
    monkeypatch.setattr(Engine, "_get_unique_request_id", staticmethod(new_id))
    monkeypatch.setattr(Engine, "generate", wrap_generate(Engine.generate, state))
    monkeypatch.setattr(Application, "__call__", wrap_application(Application.__call__, state))


async def serve(
    endpoint: Endpoint,
    *,
    websocket: bool = False,
    path: str = "/v1/x",
    route: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Uvicorn:
    """``route`` is the template that the application finds for the path."""
    server = Uvicorn(*([] if websocket else [REQUEST]), websocket=websocket)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if not websocket:
            await receive()
        if route is not None:
            scope["route"] = SimpleNamespace(path=route)
        await endpoint(Call(server, scope, receive, send))

    kind = "websocket" if websocket else "http"
    scope = {"type": kind, "path": path, "headers": list(headers)}
    logged = (OSError, RuntimeError, EngineGenerateError, asyncio.CancelledError)
    with contextlib.suppress(*logged):
        await Application(application)(scope, server.receive, server.send)
    await spin()
    server.waiting_at_the_end = server.waiting
    return server


# How a request ended is what its client was answered


async def whole(call: Call) -> None:
    await call.outputs(*ALL)
    await call.answer()


async def refused_by_the_engine(call: Call) -> None:
    try:
        await call.outputs(ValueError("bad voice"))
    except ValueError:
        await call.answer(400)


async def refused_after_the_engine(call: Call) -> None:
    await call.outputs(*ALL)  # and there is no sound in it
    await call.answer(400)


async def engine_failed(call: Call) -> None:
    try:
        await call.outputs(speech(480), EngineGenerateError("failed"))
    except EngineGenerateError:
        await call.answer(500)


async def engine_fails_in_an_unknown_way(call: Call) -> None:
    try:
        await call.outputs(speech(480), RuntimeError("died"))
    except RuntimeError:
        await call.answer(500)


async def stage_says_that_it_failed(call: Call) -> None:
    part = speech(480, finished=True)
    part.outputs[0].finish_reason = "error"
    await call.outputs(part)
    await call.answer(500)


async def aborted_in_the_engine(call: Call) -> None:
    part = speech(480, finished=True)
    part.outputs[0].finish_reason = "abort"
    await call.outputs(part)
    await call.answer()


async def ends_without_a_word(call: Call) -> None:
    await call.outputs()
    await call.answer(500)


async def given_up_by_the_endpoint(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await outputs.aclose()
    await call.answer(504)


async def encoder_failed(call: Call) -> None:
    await call.outputs(*ALL)
    await call.answer(500)


async def application_raises(call: Call) -> None:
    await call.outputs(*ALL)
    raise OSError("the encoder failed")


async def raises_in_midstream(call: Call) -> None:
    await call.send(start())
    async for _ in Engine(*ALL).generate("hello"):
        await call.send(body(b"sound"))
        raise OSError("the encoder failed")


async def tells_of_an_error_in_midstream(call: Call) -> None:
    await call.send(start())
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await call.send(body(b'data: {"error": {"message": "no"}}\n\n'))
    await outputs.aclose()
    await call.send(LAST)


async def tells_of_an_error_after_the_last_output(call: Call) -> None:
    await call.send(start())
    await call.outputs(*ALL)
    await call.send(body(b"event: speech.audio.error\ndata: {}\n\n"))
    await call.send(LAST)


async def leaves_the_engine_hanging(call: Call) -> None:
    await call.send(start())
    call.server.hanging = Engine(*ALL).generate("hello")  # type: ignore[attr-defined]
    await call.server.hanging.__anext__()  # type: ignore[attr-defined]
    await call.send(LAST)


async def never_ends(call: Call) -> None:
    await call.send(start())
    await call.outputs(*ALL)


async def left_while_the_engine_works_on(call: Call) -> None:
    await call.outputs(speech(480), call.leave, speech(480, finished=True))
    await call.answer()


async def left_while_it_is_encoded(call: Call) -> None:
    await call.outputs(*ALL)
    await call.leave()
    await call.answer()


async def left_before_the_terminator(call: Call) -> None:
    await call.send(start())
    await call.outputs(*ALL)
    await call.send(body(b"sound"))
    await call.leave()
    await call.send(LAST)


async def left_and_cancelled(call: Call) -> None:
    working = asyncio.create_task(call.outputs(speech(480), call.leave, asyncio.Event().wait))
    while (await call.receive())["type"] != "http.disconnect":
        pass
    working.cancel()
    await asyncio.wait([working])
    await call.answer()  # nothing, to nobody


async def left_after_the_last_byte(call: Call) -> None:
    await whole(call)
    await call.leave()


async def cancelled_by_the_server(call: Call) -> None:
    await call.outputs(speech(480))
    raise asyncio.CancelledError


async def cut_short_by_a_limit(call: Call) -> None:
    part = speech(480, finished=True)
    part.outputs[0].finish_reason = "length"
    await call.outputs(part)
    await call.answer()


@pytest.mark.parametrize(
    ("endpoint", "outcome", "failure"),
    [
        (whole, "stop", None),
        (cut_short_by_a_limit, "length", None),
        (left_after_the_last_byte, "stop", None),
        (refused_by_the_engine, "rejected", "invalid_request"),
        (refused_after_the_engine, "rejected", "invalid_request"),
        (engine_failed, "error", "stage_error"),
        (engine_fails_in_an_unknown_way, "error", "other"),
        (stage_says_that_it_failed, "error", "stage_error"),
        (ends_without_a_word, "error", "no_output"),
        (given_up_by_the_endpoint, "error", "timeout"),
        (encoder_failed, "error", "endpoint_error"),
        (application_raises, "error", "endpoint_error"),
        (raises_in_midstream, "error", "endpoint_error"),
        (tells_of_an_error_in_midstream, "error", "endpoint_error"),
        (tells_of_an_error_after_the_last_output, "error", "endpoint_error"),
        (leaves_the_engine_hanging, "error", "endpoint_error"),
        (never_ends, "error", "endpoint_error"),
        (left_while_the_engine_works_on, "abort", "client_disconnect"),
        (left_while_it_is_encoded, "abort", "client_disconnect"),
        (left_before_the_terminator, "abort", "client_disconnect"),
        (left_and_cancelled, "abort", "client_disconnect"),
        (cancelled_by_the_server, "abort", "client_disconnect"),
        (aborted_in_the_engine, "abort", "client_abort"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_outcome_is_what_the_client_was_answered_and_failure_why(
    state: EngineState, recorder: Any, endpoint: Endpoint, outcome: str, failure: str | None
) -> None:
    asyncio.run(serve(endpoint))
    ended = recorder.only(RequestFinished)
    assert (ended.outcome, ended.failure) == (outcome, failure)
    assert len(recorder.of(AudioFinished)) == (outcome in ("stop", "length"))
    assert state.requests.by_id == {}


SAYS = {
    "done": '{"type":"audio.done"}',
    "stopped": '{"type":"session.done","request_id":"a","chunks":0,"stopped":true}',
    "not stopped": '{"type":"session.done","request_id":"a","chunks":1,"stopped":false}',
    "error": '{"type":"error","message":"no"}',
    "spaced error": '{"type": "error", "message": "no"}',
}


@pytest.mark.parametrize(
    ("said", "outcome", "failure"),
    [
        ("done", "stop", None),
        ("error", "error", "endpoint_error"),
        ("spaced error", "error", "endpoint_error"),
        ("stopped", "abort", "client_abort"),
        ("not stopped", "stop", None),
    ],
)
def test_websockets_next_event_says_what_became_of_the_request(
    recorder: Any, said: str, outcome: str, failure: str | None
) -> None:
    async def endpoint(call: Call) -> None:
        await call.outputs(*ALL)
        await call.send({"type": "websocket.send", "bytes": b"sound"})
        assert recorder.of(RequestFinished) == []
        await call.send(event(SAYS[said]))
        ended = recorder.only(RequestFinished)
        assert (ended.outcome, ended.failure) == (outcome, failure)
        await call.send(event(SAYS["done"]))
        await call.leave()

    asyncio.run(serve(endpoint, websocket=True))
    recorder.only(RequestFinished)


async def ws_stopped(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await outputs.aclose()
    await call.send(event('{"type":"session.done","stopped":true}'))


async def ws_failed(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await outputs.aclose()
    await call.send(event(SAYS["error"]))


async def ws_failed_and_closed_later(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await call.send(event(SAYS["error"]))
    await outputs.aclose()
    await call.send(event(SAYS["done"]))


async def ws_complains_about_something_else(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello")
    await outputs.__anext__()
    await call.send(event(SAYS["error"]))
    async for _ in outputs:
        pass
    await call.send(event(SAYS["done"]))


async def ws_left_in_midstream(call: Call) -> None:
    async for _ in Engine(*ALL).generate("hello"):
        call.server.left.set()
        await call.send({"type": "websocket.send", "bytes": b"sound"})


async def ws_left_before_the_end(call: Call) -> None:
    await call.outputs(*ALL)
    call.server.left.set()
    await call.send(event(SAYS["done"]))


async def ws_left_while_the_engine_worked(call: Call) -> None:
    listening = asyncio.create_task(call.receive())
    await call.outputs(speech(480), call.leave, speech(480, finished=True))
    assert (await listening)["type"] == "websocket.disconnect"


async def ws_closed_in_anger(call: Call) -> None:
    await call.outputs(*ALL)
    await call.send({"type": "websocket.close", "code": 1011})


async def ws_closed(call: Call) -> None:
    await call.outputs(*ALL)
    await call.send({"type": "websocket.close", "code": 1000})


async def ws_raises(call: Call) -> None:
    await call.outputs(*ALL)
    raise RuntimeError("a fault")


async def ws_engine_failed(call: Call) -> None:
    await call.outputs(speech(480), EngineGenerateError("failed"))


async def ws_stopped_with_the_generator_left_behind(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello", None, "speech")
    await anext(outputs)
    await call.send(event(SAYS["stopped"]))
    async for _ in outputs:
        pass
    await call.leave()


async def ws_stopped_and_left(call: Call) -> None:
    outputs = Engine(*ALL).generate("hello", None, "speech")
    await anext(outputs)
    await call.send(event(SAYS["stopped"]))
    listening = asyncio.create_task(call.receive())
    await call.leave()
    assert (await listening)["type"] == "websocket.disconnect"
    await outputs.aclose()


@pytest.mark.parametrize(
    ("endpoint", "outcome", "failure"),
    [
        (ws_stopped_and_left, "abort", "client_abort"),
        (ws_stopped, "abort", "client_abort"),
        (ws_stopped_with_the_generator_left_behind, "abort", "client_abort"),
        (ws_failed, "error", "endpoint_error"),
        (ws_failed_and_closed_later, "error", "endpoint_error"),
        (ws_complains_about_something_else, "stop", None),
        (ws_left_in_midstream, "abort", "client_disconnect"),
        (ws_left_before_the_end, "abort", "client_disconnect"),
        (ws_left_while_the_engine_worked, "abort", "client_disconnect"),
        (ws_closed_in_anger, "error", "endpoint_error"),
        (ws_closed, "stop", None),
        (ws_raises, "error", "endpoint_error"),
        (ws_engine_failed, "error", "stage_error"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_outcome_on_a_websocket(
    state: EngineState, recorder: Any, endpoint: Endpoint, outcome: str, failure: str | None
) -> None:
    asyncio.run(serve(endpoint, websocket=True))
    ended = recorder.only(RequestFinished)
    assert (ended.outcome, ended.failure) == (outcome, failure)
    assert state.requests.by_id == {}


def test_websocket_carries_many_requests_each_with_its_own_end(recorder: Any) -> None:
    async def endpoint(call: Call) -> None:
        await call.outputs(*ALL)
        await call.send(event(SAYS["error"]))
        await call.outputs(*ALL)
        await call.outputs(*ALL)  # nothing was said of the one before
        assert len(recorder.of(RequestFinished)) == 2
        await call.send(event(SAYS["done"]))
        await call.leave()

    asyncio.run(serve(endpoint, websocket=True))
    assert [end.outcome for end in recorder.of(RequestFinished)] == ["error", "stop", "stop"]


def test_request_whose_engine_goes_on_after_the_websocket_ends_by_itself(recorder: Any) -> None:
    async def both() -> None:
        hanging = Engine(*ALL).generate("hello")

        async def endpoint(call: Call) -> None:
            await hanging.__anext__()
            call.server.left.set()
            await call.receive()

        await serve(endpoint, websocket=True)
        assert recorder.of(RequestFinished) == []
        await hanging.aclose()

    asyncio.run(both())
    assert recorder.only(RequestFinished).outcome == "abort"


def test_times_are_those_of_the_engine_whatever_the_response_takes(
    recorder: Any, clock: Any
) -> None:
    async def endpoint(call: Call) -> None:
        async def work() -> None:
            clock.advance(2.0)

        await call.outputs(work, *ALL)
        clock.advance(5.0)
        await call.answer()

    asyncio.run(serve(endpoint))
    assert recorder.only(RequestFinished).end_to_end_seconds == 2.0


def test_two_requests_of_one_response_end_with_it(recorder: Any) -> None:
    async def endpoint(call: Call) -> None:
        await asyncio.gather(call.outputs(*ALL), call.outputs(*ALL))
        assert recorder.of(RequestFinished) == []
        await call.answer()

    asyncio.run(serve(endpoint))
    assert [end.outcome for end in recorder.of(RequestFinished)] == ["stop", "stop"]


def test_item_of_a_batch_that_fails_is_an_error_beside_its_neighbours(recorder: Any) -> None:
    async def _generate_audio_bytes(call: Call, encodes: bool) -> None:
        await call.outputs(*ALL)
        if not encodes:
            raise ValueError("no sound in it")

    generate = wrap_speech(_generate_audio_bytes, None)

    async def endpoint(call: Call) -> None:
        items = [generate(call, encodes) for encodes in (True, False, True)]
        await asyncio.gather(*items, return_exceptions=True)
        await call.answer()

    asyncio.run(serve(endpoint))
    ends = [(end.outcome, end.failure) for end in recorder.of(RequestFinished)]
    assert sorted(ends, key=str) == [("error", "endpoint_error"), ("stop", None), ("stop", None)]


# Jobs that outlive their response


@pytest.mark.parametrize(
    ("ending", "outcome", "failure"),
    [
        (None, "stop", None),
        (OSError("no encoder"), "error", "endpoint_error"),
        (asyncio.CancelledError(), "abort", "client_abort"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("begins_before_the_response_is_over", [True, False])
def test_job_ends_with_the_job_and_not_with_the_order(
    recorder: Any,
    ending: Any,
    outcome: str,
    failure: str | None,
    begins_before_the_response_is_over: bool,
) -> None:
    jobs = []

    async def generate_video_bytes(call: Call) -> None:
        await call.outputs(speech(480), spin, *ALL)
        await spin()
        if ending is not None:
            raise ending

    generate = wrap_generate_bytes(generate_video_bytes, None)

    async def endpoint(call: Call) -> None:
        jobs.append(asyncio.create_task(generate(call)))
        if begins_before_the_response_is_over:
            await asyncio.sleep(0)
        await call.answer()

    async def both() -> None:
        await serve(endpoint, path="/v1/videos")
        await asyncio.wait(jobs)

    asyncio.run(both())
    ended = recorder.only(RequestFinished)
    assert (ended.outcome, ended.failure) == (outcome, failure)


def test_job_that_the_engine_was_told_to_abort_has_not_failed(recorder: Any) -> None:
    aborted = speech(480, finished=True)
    aborted.outputs[0].finish_reason = "abort"

    async def generate_video_bytes(call: Call) -> None:
        await call.outputs(aborted)
        raise ValueError("no video in it")

    generate = wrap_generate_bytes(generate_video_bytes, None)

    async def job() -> None:
        with pytest.raises(ValueError, match="no video"):
            await generate(Call(Uvicorn(), None, None, None))

    asyncio.run(job())
    ended = recorder.only(RequestFinished)
    assert (ended.outcome, ended.failure) == ("abort", "client_abort")


def test_video_that_its_client_waits_for_ends_with_the_response(recorder: Any) -> None:
    async def generate_video_bytes(call: Call) -> None:
        await call.outputs(*ALL)

    generate = wrap_generate_bytes(generate_video_bytes, None)

    async def endpoint(call: Call) -> None:
        await generate(call)
        assert recorder.of(RequestFinished) == []
        await call.answer(500)

    asyncio.run(serve(endpoint, path="/v1/videos/sync"))
    assert recorder.only(RequestFinished).outcome == "error"


# What the client called


@pytest.mark.parametrize(
    ("endpoint", "status"), [(whole, 200), (refused_after_the_engine, 400), (encoder_failed, 500)]
)
def test_request_says_which_route_its_client_called_and_the_status_it_was_sent(
    recorder: Any, endpoint: Endpoint, status: int
) -> None:
    asyncio.run(serve(endpoint, path="/v1/voices/x/speech", route="/v1/voices/{name}/speech"))
    arrived, finished = recorder.only(RequestArrived), recorder.only(RequestFinished)
    for event in (arrived, finished):
        assert (event.endpoint, event.transport) == ("/v1/voices/{name}/speech", "http")
    assert finished.status == status


def test_client_that_left_before_the_response_was_sent_no_status(recorder: Any) -> None:
    async def endpoint(call: Call) -> None:
        await call.outputs(speech(480), call.leave, *ALL)

    asyncio.run(serve(endpoint))
    finished = recorder.only(RequestFinished)
    assert (finished.outcome, finished.status) == ("abort", None)


def test_path_without_a_route_is_no_endpoint(recorder: Any) -> None:
    asyncio.run(serve(whole, path="/anything/a/client/likes"))
    assert recorder.only(RequestFinished).endpoint is None


def test_request_on_a_websocket_has_its_route_and_no_status(recorder: Any) -> None:
    asyncio.run(serve(ws_left_in_midstream, websocket=True, route="/v1/realtime"))
    finished = recorder.only(RequestFinished)
    assert (finished.endpoint, finished.transport) == ("/v1/realtime", "websocket")
    assert finished.status is None


async def ordered(begins_before_the_response_is_over: bool, **asked: Any) -> None:
    """A client orders a video, which is made in a job."""
    jobs = []

    async def generate_video_bytes(call: Call) -> None:
        await call.outputs(*ALL)

    generate = wrap_generate_bytes(generate_video_bytes, None)

    async def endpoint(call: Call) -> None:
        jobs.append(asyncio.create_task(generate(call)))
        if begins_before_the_response_is_over:
            await asyncio.sleep(0)
        await call.answer()

    await serve(endpoint, path="/v1/videos", **asked)
    await asyncio.wait(jobs)


@pytest.mark.parametrize("begins_before_the_response_is_over", [True, False])
def test_job_has_the_route_of_its_order_and_no_status(
    recorder: Any, begins_before_the_response_is_over: bool
) -> None:
    asyncio.run(ordered(begins_before_the_response_is_over, route="/v1/videos"))
    for event in (recorder.only(RequestArrived), recorder.only(RequestFinished)):
        assert (event.endpoint, event.transport) == ("/v1/videos", "job")
    assert recorder.only(RequestFinished).status is None


def test_request_of_a_script_has_neither_route_nor_transport(recorder: Any) -> None:
    asyncio.run(Call(Uvicorn(), None, None, None).outputs(*ALL))
    arrived = recorder.only(RequestArrived)
    assert (arrived.endpoint, arrived.transport) == (None, None)


# The client's headers

HEADERS = [(b"host", b"x"), (b"authorization", b"Bearer key"), (b"x-team", b"red")]


@pytest.fixture
def _carried(state: EngineState) -> None:
    state.request_headers = RequestHeaders([CarriedHeader("x-team", hashed=False)])


@pytest.mark.usefixtures("_carried")
@pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
def test_events_carry_the_headers_that_are_asked_for(recorder: Any, websocket: bool) -> None:
    asyncio.run(serve(whole, websocket=websocket, headers=HEADERS))
    assert recorder.only(RequestArrived).headers == (("x-team", "red"),)
    assert recorder.only(RequestFinished).headers == (("x-team", "red"),)


def test_events_carry_no_header_that_nobody_asked_for(recorder: Any) -> None:
    asyncio.run(serve(whole, headers=HEADERS))
    assert recorder.only(RequestArrived).headers == ()
    assert recorder.only(RequestFinished).headers == ()


@pytest.mark.usefixtures("_carried")
def test_each_request_of_a_connection_has_its_own_headers(recorder: Any) -> None:
    """On asyncio's own loop the next one inherits the context of the last one."""

    async def keep_alive() -> None:
        for team in (b"red", b"blue"):
            await serve(whole, headers=[(b"x-team", team)])
        await serve(whole)

    asyncio.run(keep_alive())
    carried = [dict(end.headers).get("x-team") for end in recorder.of(RequestFinished)]
    assert carried == ["red", "blue", None]


@pytest.mark.usefixtures("_carried")
@pytest.mark.parametrize("begins_before_the_response_is_over", [True, False])
def test_job_carries_the_headers_of_whoever_ordered_it(
    recorder: Any, begins_before_the_response_is_over: bool
) -> None:
    asyncio.run(ordered(begins_before_the_response_is_over, headers=HEADERS))
    assert recorder.only(RequestFinished).headers == (("x-team", "red"),)


@pytest.mark.usefixtures("_carried")
def test_headers_that_cannot_be_read_cost_the_client_nothing(
    recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = asyncio.run(serve(whole, headers=[b"nothing of the kind"]))  # type: ignore[list-item]
    assert [message["type"] for message in server.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert recorder.only(RequestFinished).headers == ()
    assert "reading a request's headers" in caplog.text


# Nobody's requests


def test_warm_ups_of_the_server_itself_are_told_nowhere(state: EngineState, recorder: Any) -> None:
    async def warmup(_: Any) -> None:
        async def stages() -> None:
            [request_id] = state.requests.nobodys
            state.requests.submitted(request_id, 0, 0, None)
            state.requests.submitted("companion", 0, 0, request_id)
            state.requests.stage_finished(request_id, 0, 0, "stop", 1, 1)

        call = Call(Uvicorn(), None, None, None)
        assert len(await call.outputs(stages, *ALL)) == 2
        await asyncio.gather(call.outputs(*ALL), call.outputs(*ALL))

    async def both() -> None:
        await wrap_warmup(warmup, None)(None)
        assert recorder.events == []
        await serve(whole)

    asyncio.run(both())
    assert state.requests.nobodys == set()
    recorder.only(RequestArrived)
    recorder.only(RequestFinished)
    assert recorder.of(StageSubmitted) == recorder.of(StageFinished) == []


# The traps


def test_departed_client_is_noticed_though_the_application_does_not_receive(
    recorder: Any,
) -> None:
    """uvicorn reads on only while somebody receives: after an upload over 64 KiB nobody does."""

    async def endpoint(call: Call) -> None:
        async def leaves() -> None:
            await spin()
            assert call.server.waiting == 1
            await call.leave()

        await call.outputs(leaves, *ALL)
        await call.answer()
        assert await call.receive() is GONE, "and is told when it asks"

    asyncio.run(serve(endpoint))
    assert recorder.only(RequestFinished).outcome == "abort"


def test_nobody_receives_in_place_of_an_application_that_does() -> None:
    async def endpoint(call: Call) -> None:
        listening = asyncio.create_task(call.receive())
        await spin()

        async def look() -> None:
            await spin()
            assert call.server.waiting == 1

        await call.outputs(look, *ALL)
        listening.cancel()
        await spin()
        assert call.server.waiting == 1, "ours, as the application gave up"
        await call.answer()

    server = asyncio.run(serve(endpoint))
    assert server.waiting_at_the_end == 0, "nothing of ours waits when the response is over"


def test_application_that_gives_up_receiving_is_cancelled_alone(recorder: Any) -> None:
    async def endpoint(call: Call) -> None:
        async def gives_up() -> None:
            await spin()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call.receive(), 0.01)
            assert call.server.waiting == 1

        await call.outputs(gives_up, *ALL)
        await call.answer()

    asyncio.run(serve(endpoint))
    assert recorder.only(RequestFinished).outcome == "stop"


def test_each_request_of_a_connection_has_an_exchange_of_its_own(recorder: Any) -> None:
    """On asyncio's own loop the next one inherits the context of the last one."""

    async def keep_alive() -> None:
        for endpoint in (encoder_failed, whole, refused_after_the_engine):
            await serve(endpoint)  # in this one context

    asyncio.run(keep_alive())
    assert [end.outcome for end in recorder.of(RequestFinished)] == ["error", "stop", "rejected"]


def test_call_in_a_context_whose_response_is_over_belongs_to_nobodys_response(
    recorder: Any,
) -> None:
    later: list[Any] = []

    async def both() -> None:
        async def endpoint(call: Call) -> None:
            later.append(contextvars.copy_context())
            await call.answer(500)

        await serve(endpoint)
        call = Call(Uvicorn(), None, None, None)
        await later[0].run(asyncio.create_task, call.outputs(*ALL))

    asyncio.run(both())
    assert recorder.only(RequestFinished).outcome == "stop"


def test_application_within_the_application_has_the_same_exchange(recorder: Any) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        call = Call(server, scope, receive, send)
        await call.outputs(*ALL)
        assert recorder.of(RequestFinished) == []
        await call.answer(500)

    async def mounting(scope: Any, receive: Any, send: Any) -> None:
        await Application(endpoint)(dict(scope), receive, send)
        assert recorder.of(RequestFinished) == [], "the outer one is what the client sees"

    server = Uvicorn(REQUEST)

    async def run() -> None:
        server.left = asyncio.Event()
        await Application(mounting)({"type": "http"}, server.receive, server.send)

    asyncio.run(run())
    assert recorder.only(RequestFinished).outcome == "error"


def test_nothing_is_kept_of_a_response_that_is_over() -> None:
    exchanges: list[weakref.ref[Any]] = []

    class Scope(dict[str, Any]):
        """One that can be referred to weakly."""

    async def run() -> contextvars.Context:
        scope = Scope(type="http", path="/")
        exchanges.append(weakref.ref(scope))
        server = Uvicorn(REQUEST)
        kept: list[contextvars.Context] = []

        async def endpoint(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            kept.append(contextvars.copy_context())  # as the engine does with the first one
            await whole(Call(server, scope, receive, send))

        await Application(endpoint)(scope, server.receive, server.send)
        return kept[0]

    context = asyncio.run(run())
    gc.collect()
    assert exchanges[0]() is None
    assert context is not None


def test_fault_of_ours_changes_nothing_of_the_response(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    for method in ("attach", "generated", "completes", "leaves", "ends", "tells"):
        monkeypatch.setattr(Exchange, method, fault)
    for websocket in (False, True):
        server = asyncio.run(serve(whole, websocket=websocket))
        assert server.sent == [start(), LAST]
    assert log.messages
    assert all("a fault of ours" in str(record.exc_info[1]) for record in log.records)


# Nobody can tell that it is there

BODIES = [REQUEST, {**REQUEST, "more_body": True}, GONE, {"type": "of.the.future"}]
SENT = [
    start(),
    start(404),
    body(b"a"),
    body(bytearray(b"a")),
    {**LAST, "body": None},
    LAST,
    {"type": "of.the.future"},
    {},
    None,
]
ERRORS = [ValueError("a"), asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()]
SCRIPTS = st.lists(
    st.one_of(
        st.tuples(st.just("receive")),
        st.tuples(st.just("send"), st.integers(0, len(SENT) - 1)),
        st.tuples(st.just("fail to send"), st.integers(0, len(SENT) - 1)),
        st.tuples(st.just("generate")),
        st.tuples(st.just("wait")),
        st.tuples(st.just("raise"), st.integers(0, len(ERRORS) - 1)),
    ),
    max_size=12,
)


@given(
    script=SCRIPTS,
    incoming=st.lists(st.integers(0, len(BODIES) - 1), max_size=4),
    kind=st.sampled_from(["http", "websocket", "lifespan", "of.the.future"]),
)
def test_every_sequence_of_messages_and_exceptions_passes_unchanged(
    log: Any, script: list[Any], incoming: list[int], kind: str
) -> None:
    def drive(application: Any) -> list[Any]:
        seen: list[Any] = []
        messages = [BODIES[number] for number in incoming]

        async def receive() -> Any:
            await asyncio.sleep(0)
            return messages.pop(0) if messages else {"type": "nothing"}

        async def send(message: Any) -> None:
            if failing[0]:
                raise failing[0]
            seen.append(("sent", message))

        failing: list[Any] = [None]

        async def endpoint(scope: Any, receive: Any, send: Any) -> str:
            for step, *details in script:
                if step == "receive":
                    seen.append(("received", await receive()))
                elif step == "send":
                    await send(SENT[details[0]])
                elif step == "fail to send":
                    failing[0] = OSError("gone")
                    try:
                        await send(SENT[details[0]])
                    except OSError as error:
                        seen.append(("failed", error is failing[0]))
                    failing[0] = None
                elif step == "generate":
                    await Call(Uvicorn(), scope, receive, send).outputs(*ALL)
                elif step == "wait":
                    await spin()
                else:
                    raise ERRORS[details[0]]
            return "returned"

        step = application(endpoint)({"type": kind}, receive, send)
        try:
            seen.append(asyncio.run(_caught(step)))
        except BaseException as error:
            seen.append(error)
        return seen

    plain = drive(lambda endpoint: endpoint)
    wrapped = drive(Application)
    assert len(plain) == len(wrapped)
    for one, other in zip(plain, wrapped, strict=True):
        assert one == other
        if isinstance(one, tuple) and one[0] in ("sent", "received"):
            assert one[1] is other[1] or one[1] == {"type": "nothing"}


async def _caught(step: Any) -> Any:
    try:
        return await step
    except BaseException as error:
        return ("raised", error)


def test_parts_of_any_kind_of_bytes_are_no_fault(log: Any) -> None:
    async def endpoint(call: Call) -> None:
        await call.send(start())
        for part in (b"a", bytearray(b"a"), memoryview(b"a"), b"event: error"):
            await call.send(body(part))
        await call.send({"type": "http.response.body"})

    asyncio.run(serve(endpoint))
    assert log.messages == []


def test_wrapper_passes_on_what_it_does_not_know(state: EngineState) -> None:
    class Newer:
        async def __call__(
            self, scope: Any, receive: Any, send: Any, *more: Any, **named: Any
        ) -> Any:
            return scope["type"], more, named

    call = wrap_application(Newer.__call__, state)
    for kind in ("http", "lifespan"):
        answer = asyncio.run(call(Newer(), {"type": kind}, None, None, 1, name=2))
        assert answer == (kind, (1,), {"name": 2})
    assert http.answering() is None


@pytest.mark.parametrize("endpoint", [whole, ws_stopped, ws_left_in_midstream, ws_raises])
def test_nothing_keeps_a_request_that_has_ended(endpoint: Endpoint, recorder: Any) -> None:
    before = {id(each) for each in gc.get_objects() if type(each) is OpenRequest}
    server = asyncio.run(serve(endpoint, websocket=endpoint is not whole))
    recorder.only(RequestFinished)
    del server
    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is OpenRequest]
    assert [each.request_id for each in kept if id(each) not in before] == []
