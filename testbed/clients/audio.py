"""An independent client: counts the samples it gets and times its first audio and its last byte.

It shares no code with the plugin. Times are seconds from just before the request is sent.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

_SAMPLE_BYTES = 2
#: Of raw PCM, which does not say; the tiny models' own rate.
_PCM_RATE = 24000
_SECONDS = 120.0
_POLL_SECONDS = 0.02

Stream = Literal["audio", "sse"]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    #: HTTP status, 101 for a websocket that opened, 0 if there was no answer at all.
    status: int
    samples: int = 0
    sample_rate: int | None = None
    #: None for an answer that was not streamed or had no audio.
    first_audio_seconds: float | None = None
    total_seconds: float = 0.0
    packets: int = 0
    #: When each packet came and what all until then last, both in seconds.
    arrivals: tuple[tuple[float, float], ...] = ()
    #: This client closed the connection on purpose.
    hung_up: bool = False
    error: str | None = None
    finish_reasons: tuple[str, ...] = ()
    #: As the server states them; None where it does not.
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the server took the request on, whatever became of it."""
        return not 400 <= self.status < 500

    @property
    def audio_seconds(self) -> float:
        return self.samples / self.sample_rate if self.sample_rate else 0.0


class HungUpError(Exception):
    """Raised to leave a connection in the middle."""


class IncomingAnswer:
    """Collects one answer as it comes in."""

    def __init__(self, hang_up_after_packets: int | None = None) -> None:
        self._began = time.perf_counter()
        self._hang_up_after_packets = hang_up_after_packets
        self.status = 0
        self.streamed = True
        self._bytes = 0
        self._rate: int | None = None
        self._first: float | None = None
        self._arrivals: list[tuple[float, float]] = []
        self._error: str | None = None
        self._reasons: list[str] = []
        self._usage: dict[str, int] = {}

    def start(self) -> None:
        """The request proper goes out now; what came before was only getting ready for it."""
        self._began = time.perf_counter()

    def pcm(self, data: bytes, rate: int = _PCM_RATE) -> None:
        if not data:
            return
        now = time.perf_counter() - self._began
        if self._first is None:
            self._first = now
        self._bytes += len(data)
        self._rate = rate
        self._arrivals.append((now, self._bytes / _SAMPLE_BYTES / rate))
        if len(self._arrivals) == self._hang_up_after_packets:
            raise HungUpError

    def wav(self, data: bytes) -> None:
        with wave.open(io.BytesIO(data)) as file:
            self.pcm(file.readframes(file.getnframes()), file.getframerate())

    def reason(self, finish_reason: str | None) -> None:
        if finish_reason:
            self._reasons.append(finish_reason)

    def usage(self, tokens: dict[str, int] | None) -> None:
        if tokens:
            self._usage = tokens

    def failed(self, error: str) -> None:
        self._error = error

    def answer(self, *, hung_up: bool = False) -> Answer:
        return Answer(
            status=self.status,
            samples=self._bytes // _SAMPLE_BYTES,
            sample_rate=self._rate,
            first_audio_seconds=self._first if self.streamed else None,
            total_seconds=time.perf_counter() - self._began,
            packets=len(self._arrivals),
            arrivals=tuple(self._arrivals),
            hung_up=hung_up,
            error=self._error,
            finish_reasons=tuple(self._reasons),
            prompt_tokens=self._usage.get("prompt_tokens"),
            completion_tokens=self._usage.get("completion_tokens"),
        )


def speech_body(text: str, *, tokens: int, stream: Stream | None) -> dict[str, Any]:
    """What ``/v1/audio/speech`` is asked: one WAV, or PCM as it comes."""
    whole = {"input": text, "voice": "vivian", "language": "English", "max_new_tokens": tokens}
    if stream is None:
        return {**whole, "response_format": "wav"}
    return {**whole, "response_format": "pcm", "stream": True, "stream_format": stream}


def speech(
    url: str,
    text: str = "hello world",
    *,
    tokens: int = 24,
    stream: Stream | None = None,
    hang_up_after_packets: int | None = None,
    hang_up_when: Callable[[], bool] | None = None,
    traceparent: str | None = None,
    **more: Any,
) -> Answer:
    """``/v1/audio/speech``: one WAV, raw PCM as it comes, or server-sent events.

    ``traceparent`` is the client's own trace, as the header has it.
    ``hang_up_when`` is asked again and again while the answer is awaited, until it says to leave.
    """
    body = speech_body(text, tokens=tokens, stream=stream) | more

    def read(incoming: IncomingAnswer, response: http.client.HTTPResponse) -> None:
        if stream is None:
            incoming.wav(response.read())
        elif stream == "audio":
            for data in _pieces(response):
                incoming.pcm(data)
        else:
            for event in _server_sent(response):
                if "audio" in event:
                    incoming.pcm(base64.b64decode(event["audio"]))
                elif "error" in event:
                    incoming.failed(str(event["error"]))

    incoming = IncomingAnswer(hang_up_after_packets)
    incoming.streamed = stream is not None
    return _post(url, "/v1/audio/speech", body, incoming, read, hang_up_when, traceparent)


def chat(
    url: str,
    text: str = "hello there",
    *,
    modalities: Sequence[str] = ("text", "audio"),
    tokens: int = 16,
    stream: bool = False,
    hang_up_after_packets: int | None = None,
    traceparent: str | None = None,
    **more: Any,
) -> Answer:
    """``/v1/chat/completions``, whole or as server-sent events."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": text}],
        "modalities": list(modalities),
        "max_tokens": tokens,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
        **more,
    }

    def read(incoming: IncomingAnswer, response: http.client.HTTPResponse) -> None:
        if not stream:
            whole = json.loads(response.read())
            incoming.usage(whole.get("usage"))
            for choice in whole["choices"]:
                incoming.reason(choice["finish_reason"])
                if choice["message"].get("audio"):
                    incoming.wav(base64.b64decode(choice["message"]["audio"]["data"]))
            return
        for event in _server_sent(response):
            if "error" in event:
                incoming.failed(str(event["error"]))
            incoming.usage(event.get("usage"))
            for choice in event.get("choices", ()):
                incoming.reason(choice["finish_reason"])
                if event.get("modality") == "audio" and choice["delta"].get("content"):
                    incoming.wav(base64.b64decode(choice["delta"]["content"]))

    incoming = IncomingAnswer(hang_up_after_packets)
    incoming.streamed = stream
    return _post(url, "/v1/chat/completions", body, incoming, read, traceparent=traceparent)


def complete(url: str, text: str = "hello", *, tokens: int = 4) -> Answer:
    """``/v1/completions`` of a text model; only the status and the time are of interest."""
    body = {"prompt": text, "max_tokens": tokens}

    def read(incoming: IncomingAnswer, response: http.client.HTTPResponse) -> None:
        for choice in json.loads(response.read())["choices"]:
            incoming.reason(choice["finish_reason"])

    return _post(url, "/v1/completions", body, IncomingAnswer(), read)


def together(calls: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """Make the calls, so many at once; the results in the order of the calls."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda call: call(), calls))


def _post(
    url: str,
    path: str,
    body: dict[str, Any],
    incoming: IncomingAnswer,
    read: Callable[[IncomingAnswer, http.client.HTTPResponse], None],
    hang_up_when: Callable[[], bool] | None = None,
    traceparent: str | None = None,
) -> Answer:
    headers = {"content-type": "application/json"}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_SECONDS)
    try:
        connection.request("POST", path, json.dumps(body), headers)
        if hang_up_when is not None:
            while not hang_up_when():
                time.sleep(_POLL_SECONDS)
            raise HungUpError
        response = connection.getresponse()
        incoming.status = response.status
        if response.status != 200:
            incoming.failed(response.read().decode(errors="replace"))
        else:
            read(incoming, response)
    except HungUpError:
        return incoming.answer(hung_up=True)
    except (OSError, http.client.HTTPException, EOFError, wave.Error) as error:
        incoming.failed(f"{type(error).__name__}: {error}")
    finally:
        connection.close()
    return incoming.answer()


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What has arrived, as it arrives."""
    while data := response.read1(1 << 16):
        yield data


def _server_sent(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
            yield json.loads(line[5:])
