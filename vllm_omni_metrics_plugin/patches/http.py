"""The ASGI application: what each client is answered, whether all of it, and whether it stayed.

Nothing is changed: every message of the server and of the application passes as the same object,
once and in order, and so does every exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextvars import ContextVar, Token
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.metrics_route import take_over
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.request_headers import Headers
from vllm_omni_metrics_plugin.requests import Exchange, OpenRequest, Utterance
from vllm_omni_metrics_plugin.requests.client import UNKNOWN, Client

Message = MutableMapping[str, Any]

#: In a scope that has an exchange: an application within the application has the same scope.
_KEY = "omni_metrics.exchange"
#: How the engine's endpoints begin an event that says an error, on websockets and in streams.
_ERROR_MESSAGES = ('{"type":"error"', '{"type": "error"')
_ERROR_EVENTS = (
    b"event: error",
    b"event: speech.audio.error",
    b'data: {"error"',
    b'data: {"object":"error"',
    b'data: {"object": "error"',
)
_ERROR_BEGINNINGS = frozenset(event[:6] for event in _ERROR_EVENTS)
#: How the event ends that tells a client of ``/v1/realtime/video`` that it stopped.
_STOPPED = ('"stopped":true}', '"stopped": true}')
#: The websocket that makes a request of each sentence, and how the event begins that tells its
#: client that its input was answered.
_SENTENCES = "/v1/audio/speech/stream"
_INPUT_ANSWERED = ('{"type":"session.done"', '{"type": "session.done"')
#: Closing codes of a websocket that say nothing is wrong; none at all is one of them.
_NORMAL_CLOSURES = (None, 1000, 1001)


class Connection:
    """One HTTP request or websocket between the server and the application.

    uvicorn notices that a client left only while somebody receives: after a body of more than 64
    KiB it reads no further until then. So while the engine works and the application does not
    receive, a task of ours does; what it gets is what the application receives next.
    """

    __slots__ = (
        *("_endpoint", "_is_read", "_receive", "_receiving", "_scope", "_send", "_watcher"),
        *("exchange", "headers", "traceparent", "tracestate"),
    )

    def __init__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.exchange = Exchange("http" if scope["type"] == "http" else "websocket")
        #: Those of the client's request that events carry.
        self.headers: Headers = ()
        #: Of the client's own trace, where somebody asks for it.
        self.traceparent: str | None = None
        self.tracestate: str | None = None
        self._scope: Message | None = scope
        self._endpoint: str | None = None
        self._receive = receive
        self._send = send
        #: How many calls of the application wait for the server's next message.
        self._receiving = 0
        #: The application has the whole body; nothing can follow but that the client left.
        self._is_read = False
        self._watcher: asyncio.Task[Message] | None = None

    @property
    def route(self) -> str:
        """The template of the path, once the application has found it."""
        if self._scope is None:
            return ""
        return str(getattr(self._scope.get("route"), "path", self._scope.get("path", "")))

    @property
    def endpoint(self) -> str | None:
        """The template of the route; None before it is found, and where the application has none.

        Unlike :attr:`route`, also when all is over.
        """
        if self._scope is not None:
            template = getattr(self._scope.get("route"), "path", None)
            self._endpoint = None if template is None else str(template)
        return self._endpoint

    @property
    def client(self) -> Client:
        """Whom it answers."""
        return Client(
            self.endpoint, self.exchange.kind, self.traceparent, self.tracestate, self.headers
        )

    def read_trace(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Know the client's own trace, if it has one."""
        for name, value in headers:
            if name == b"traceparent":
                self.traceparent = value.decode("latin-1")
            elif name == b"tracestate":
                # In several lines it is one list.
                text = value.decode("latin-1")
                self.tracestate = f"{self.tracestate},{text}" if self.tracestate else text

    def attach(self, request: OpenRequest) -> None:
        """The engine is called for this client."""
        exchange = self.exchange
        if exchange.utterance is None and exchange.kind == "websocket" and self.route == _SENTENCES:
            exchange.utterance = Utterance(request.requests)
        request.answers(exchange)
        self._watch()

    async def receive(self) -> Message:
        """For the application."""
        while (watcher := self._watcher) is not None:
            self._receiving += 1
            try:
                message = await asyncio.shield(watcher)
            finally:
                self._receiving -= 1
                mine = self._watcher is watcher and watcher.done()
                if mine:
                    self._watcher = None
                elif self.exchange.over and self._receiving == 0:
                    self._stop_watching()
            if mine:  # else another call has it
                return message
        self._receiving += 1
        try:
            return await self._received()
        finally:
            self._receiving -= 1
            self._watch()

    async def send(self, message: Message) -> None:
        """For the application."""
        try:
            await self._send(message)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.exchange.leaves()
            raise
        try:
            if message["type"] != "http.response.body":
                self._sent(message)
                return
            # Once for each part of a response: no call, no context manager.
            body = message.get("body")
            if (
                body.__class__ is bytes
                and body[:6] in _ERROR_BEGINNINGS
                and body.startswith(_ERROR_EVENTS)
            ):
                self.exchange.failed = True
            if not message.get("more_body", False):
                self.exchange.completes()
        except Exception as error:
            internal_errors.report("reading a response", error)

    def ends(self, error: BaseException | None) -> None:
        """The application returned, or raised ``error``."""
        if error is not None:
            _note(error, self.exchange)
        self.exchange.ends()
        if self._receiving == 0:
            self._stop_watching()
        with internal_errors.suppressed("reading a route"):
            self._endpoint = self.endpoint  # a job that it ordered may begin later
        self._scope = None  # the engine keeps the first call's context for good

    async def _received(self) -> Message:
        message = await self._receive()
        with internal_errors.suppressed("reading a request"):
            kind = message["type"]
            if kind == "http.request":
                self._is_read = not message.get("more_body", False)
            elif kind in ("http.disconnect", "websocket.disconnect"):
                self.exchange.leaves()
        return message

    def _sent(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.exchange.status = message["status"]
        elif kind == "http.response.pathsend":
            self.exchange.completes()
        elif kind == "websocket.send":
            text = message.get("text")
            if text is not None:
                if text.endswith(_STOPPED):
                    self.exchange.stops()
                self.exchange.tells(error=text.startswith(_ERROR_MESSAGES))
                if self.exchange.utterance is not None and text.startswith(_INPUT_ANSWERED):
                    self.exchange.completes_utterance()
        elif kind == "websocket.close":
            self.exchange.tells(error=message.get("code") not in _NORMAL_CLOSURES)

    def _watch(self) -> None:
        exchange = self.exchange
        if (
            self._is_read
            and self._receiving == 0
            and self._watcher is None
            and exchange.has_requests
            and not (exchange.over or exchange.left or exchange.completed)
        ):
            self._watcher = asyncio.get_running_loop().create_task(self._received())
            self._watcher.add_done_callback(_retrieve)

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()


def _retrieve(watcher: asyncio.Task[Message]) -> None:
    # Else asyncio logs an exception that no call of the application came for.
    if not watcher.cancelled():
        watcher.exception()


class Job:
    """Work that was ordered in one response and outlives it."""

    __slots__ = ("client", "exchange")
    #: No request's path.
    route = ""

    def __init__(self, client: Client) -> None:
        """``client`` ordered it."""
        self.exchange = Exchange("job")
        self.client = client._replace(transport="job")

    def attach(self, request: OpenRequest) -> None:
        """The engine is called for this job."""
        request.answers(self.exchange)


_answering: ContextVar[Connection | Job | None] = ContextVar("omni_metrics_answer", default=None)
#: The requests of one part of a response, which may fail by itself.
_part: ContextVar[list[OpenRequest] | None] = ContextVar("omni_metrics_part", default=None)


def answering() -> Connection | Job | None:
    """What this code was called to answer, while somebody waits for it."""
    current = _answering.get()
    return None if current is None or current.exchange.over else current


def attach(request: OpenRequest, current: Connection | Job | None) -> None:
    """The engine is called to answer ``current``; the request ends with that."""
    part = _part.get()
    if part is not None:
        part.append(request)
    if current is not None:
        current.attach(request)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """The requests of the block end with it, whatever its caller answers."""
    order = _answering.get()
    current = Job(UNKNOWN if order is None else order.client)
    token = _answering.set(current)
    try:
        yield
    except BaseException as error:
        _note(error, current.exchange)
        raise
    finally:
        _reset(_answering, token)
        with internal_errors.suppressed("the end of a job"):
            current.exchange.ends()


@contextlib.contextmanager
def part() -> Iterator[None]:
    """The requests of the block have failed if it raises, even if the response tells of success."""
    requests: list[OpenRequest] = []
    token = _part.set(requests)
    try:
        yield
    except Exception:
        for request in requests:
            request.failed = True
        raise
    finally:
        requests.clear()  # the engine keeps the first call's context for good
        _reset(_part, token)


def _note(error: BaseException, exchange: Exchange) -> None:
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        exchange.leaves()
    else:
        exchange.failed = True


def _reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    # What is destroyed unfinished is closed in a context that never had the token.
    with contextlib.suppress(ValueError):
        variable.reset(token)


def _is_answered(scope: Any) -> bool:
    """Whether the scope is of a client, and not of an application within another's answer."""
    return (
        isinstance(scope, MutableMapping)
        and scope.get("type") in ("http", "websocket")
        and _KEY not in scope
    )


def wrap_application(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``FastAPI.__call__``: one HTTP request or websocket, as the HTTP server hands it over.

    Before all of them the server tells the application that it starts.
    """

    @functools.wraps(original)
    async def __call__(
        self: Any, scope: Any, receive: Any, send: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not _is_answered(scope):
            if state.answers_for is not None:
                with internal_errors.suppressed("taking over /metrics"):
                    if scope["type"] == "lifespan":
                        take_over(self, state.answers_for)
            return await original(self, scope, receive, send, *args, **kwargs)
        connection = Connection(scope, receive, send)
        if state.request_headers is not None:
            with internal_errors.suppressed("reading a request's headers"):
                connection.headers = state.request_headers(scope)
        scope[_KEY] = connection.exchange
        if state.requests.begin_trace is not None:
            with internal_errors.suppressed("reading a request"):
                connection.read_trace(scope["headers"])
        # Set for each: on asyncio's own loop a connection's next request inherits the last one's.
        token = _answering.set(connection)
        error: BaseException | None = None
        try:
            return await original(self, scope, connection.receive, connection.send, *args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            _reset(_answering, token)
            with internal_errors.suppressed("the end of a response"):
                connection.ends(error)
            error = None  # else it and this frame keep each other alive

    return __call__


def wrap_speech(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniOpenAIServingSpeech._generate_audio_bytes``: one whole speech, or an item of a batch.

    A batch is answered with 200, whatever becomes of its items.
    """

    @functools.wraps(original)
    async def _generate_audio_bytes(self: Any, *args: Any, **kwargs: Any) -> Any:
        with part():
            return await original(self, *args, **kwargs)

    return _generate_audio_bytes
