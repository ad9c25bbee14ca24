"""A client that notes when each piece of streamed sound comes, for a player to play it."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

_RATE = 24_000
_SAMPLE_BYTES = 2
_PIECE = 1 << 16
_SECONDS = 120.0


@dataclass(frozen=True)
class Heard:
    """Milliseconds from just before the request is sent."""

    #: Arrival and length of each piece.
    pieces: list[tuple[int, int]]
    over_at: int
    left: bool

    @property
    def samples(self) -> int:
        return sum(length for _, length in self.pieces) * _RATE // 1000


def listen(url: str, *, tokens: int, leave_after_seconds: float | None = None) -> Heard:
    """``/v1/audio/speech`` as raw PCM. ``leave_after_seconds``: of silence, the client leaves."""
    body = {
        "input": "hello world",
        "voice": "vivian",
        "language": "English",
        "max_new_tokens": tokens,
        "response_format": "pcm",
        "stream": True,
        "stream_format": "audio",
    }
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, _SECONDS)
    pieces: list[tuple[int, int]] = []
    began = time.perf_counter()
    rest = 0

    def now() -> int:
        return round(1000 * (time.perf_counter() - began))

    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/audio/speech", json.dumps(body), headers)
        assert connection.sock is not None
        connection.sock.settimeout(leave_after_seconds or _SECONDS)
        response = connection.getresponse()
        while data := response.read1(_PIECE):
            samples, rest = divmod(len(data) + rest, _SAMPLE_BYTES)
            pieces.append((now(), samples * 1000 // _RATE))
        return Heard(pieces, now(), left=False)
    except TimeoutError:
        return Heard(pieces, now(), left=True)
    finally:
        connection.close()
