"""A client that notes when each piece of streamed sound comes, for a player to play it."""

from __future__ import annotations

import array
import http.client
import json
import statistics
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from testbed.clients.audio import Answer, speech_body

_RATE = 24_000
_SAMPLE_BYTES = 2
_PIECE = 1 << 16
_SECONDS = 120.0
#: Bytes of sound that are kept: 4 s.
_KEPT = 4 * _RATE * _SAMPLE_BYTES
#: -40 dBFS, and how many milliseconds a sound lasts that is no click.
_LOUD = 327.67
_HELD = 50


@dataclass(frozen=True)
class Heard:
    """Milliseconds from just before the request is sent."""

    #: Arrival and length of each piece.
    pieces: list[tuple[int, int]]
    over_at: int
    left: bool
    samples: int
    #: Of the sound, before it is to be heard; None if it is not, in 4 s.
    silence: int | None = None


def heard(answer: Answer) -> Heard:
    """What a client of any endpoint heard."""
    pieces, until_now = [], 0
    for arrival, seconds in answer.arrivals:
        before, until_now = until_now, round(1000 * seconds)
        pieces.append((round(1000 * arrival), until_now - before))
    return Heard(pieces, round(1000 * answer.total_seconds), answer.hung_up, answer.samples)


def listen(
    url: str,
    *,
    tokens: int,
    waits_seconds: float = _SECONDS,
    bears_seconds: float = _SECONDS,
) -> Heard:
    """``/v1/audio/speech`` as raw PCM.

    The client leaves when the first piece takes longer than ``waits_seconds``, and any later one
    longer than ``bears_seconds``.
    """
    body = speech_body("hello world", tokens=tokens, stream="audio")
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, _SECONDS)
    pieces: list[tuple[int, int]] = []
    began = time.perf_counter()
    received = until_now = 0
    sound = bytearray()

    def now() -> int:
        return round(1000 * (time.perf_counter() - began))

    def until_now_heard(*, left: bool) -> Heard:
        over_at = now()
        return Heard(pieces, over_at, left, received // _SAMPLE_BYTES, _silence(bytes(sound)))

    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/audio/speech", json.dumps(body), headers)
        sock = connection.sock  # the connection lets go of it with the last piece
        assert sock is not None
        sock.settimeout(waits_seconds)
        response = connection.getresponse()
        while data := response.read1(_PIECE):
            received += len(data)
            sound += data[: _KEPT - len(sound)]
            before, until_now = until_now, received // _SAMPLE_BYTES * 1000 // _RATE
            pieces.append((now(), until_now - before))
            sock.settimeout(bears_seconds)
        return until_now_heard(left=False)
    except TimeoutError:
        return until_now_heard(left=True)
    finally:
        connection.close()


def _silence(sound: bytes) -> int | None:
    """Milliseconds before 50 in a row from each of which on 10 are loud, by their deviation."""
    values = array.array("h", sound[: len(sound) // _SAMPLE_BYTES * _SAMPLE_BYTES])
    if sys.byteorder == "big":
        values.byteswap()
    tick, row = _RATE // 1000, 0
    for start in range(0, len(values) - 10 * tick + 1, tick):
        is_loud = statistics.pstdev(values[start : start + 10 * tick]) > _LOUD
        row = row + 1 if is_loud else 0
        if row == _HELD:
            return start // tick - _HELD + 1
    return None
