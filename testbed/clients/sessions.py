"""A client of sessions of speech in and out at once, which speaks in real time.

It knows what it said and when, and counts what it heard of each turn; it knows nothing of the
server's metrics. ``python -m testbed.clients.sessions URL`` says something and shows the turn.
"""

from __future__ import annotations

import base64
import json
import math
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

_SECONDS = 120.0
_RATE = 16_000
_CHUNK_SECONDS = 0.1
#: Ends a turn after so much silence, and interrupts whoever is spoken over.
DETECTS_VOICE = {
    "type": "server_vad",
    "threshold": 0.5,
    "silence_duration_ms": 500,
    "create_response": True,
}

Event = dict[str, Any]


@dataclass
class Turn:
    """One answer, as it came; times are monotonic seconds."""

    response_id: str
    began_at: float
    samples: int = 0
    sample_rate: int = 24_000
    packets: int = 0
    first_audio_at: float | None = None
    text: str = ""
    #: ``completed``, ``cancelled`` or ``failed``, with the server's reason; None while it goes on.
    status: str | None = None
    reason: str | None = None

    @property
    def milliseconds(self) -> int:
        """Of its audio, as a client says how much it played."""
        return int(self.samples * 1000 / self.sample_rate)


class ClosedError(Exception):
    """The server ended the connection, or said nothing more."""


@dataclass
class _Heard:
    events: list[Event] = field(default_factory=list)
    turns: dict[str, Turn] = field(default_factory=dict)
    closed: str | None = None


class Session:
    """One session; a context manager that closes it politely unless it has ended."""

    def __init__(
        self,
        url: str,
        *,
        detects_voice: bool = False,
        modalities: tuple[str, ...] = ("text", "audio"),
        resume: Event | None = None,
        path: str = "/v1/realtime?duplex=1",
    ) -> None:
        """Raises :class:`ClosedError` with the server's words where it refuses the session.

        ``resume`` takes a session up again, by what :meth:`credentials` said of it.
        """
        address = url.replace("http", "ws", 1) + path
        self._connection = ExitStack()
        opening = connect(address, max_size=None, compression=None)
        self._socket = self._connection.enter_context(opening)
        self._news = threading.Condition()
        self._heard = _Heard()
        #: When something was sent last that the server may answer to.
        self.asked_at = 0.0
        #: When the last chunk with a voice in it was sent.
        self.spoke_at = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if resume is not None:
            self.send("session.resume", **resume)
            self.wait("session.resumed")
            return
        settings = {
            "modalities": list(modalities),
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_sample_rate_hz": _RATE,
            "turn_detection": DETECTS_VOICE if detects_voice else None,
        }
        self.send("session.update", session=settings)
        try:
            self._created = self.wait("session.created", or_error=True)
        except ClosedError:
            self._connection.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._heard.closed:
            self.close()

    @property
    def turns(self) -> list[Turn]:
        """In the order in which they began."""
        with self._news:
            return list(self._heard.turns.values())

    def events(self, kind: str) -> list[Event]:
        """Those of this type that came, with ``at``, when each did."""
        with self._news:
            return [event for event in self._heard.events if event["type"] == kind]

    def credentials(self) -> Event:
        """What takes this session up again on another connection."""
        with self._news:
            seen = [e["server_event_seq"] for e in self._heard.events if "server_event_seq" in e]
        return {
            "session_id": self._created["session"]["id"],
            "resume_token": self._created["resume_token"],
            "last_received_server_event_seq": max(seen),
        }

    # What it does

    def send(self, kind: str, **fields: Any) -> None:
        self._socket.send(json.dumps({"type": kind, **fields}))

    def speak(self, seconds: float = 0.8) -> None:
        """Say something, as fast as one speaks."""
        self._sound(seconds, 8000)
        self.spoke_at = self._sent_at

    def be_silent(self, seconds: float) -> None:
        """Send silence, as fast as time passes."""
        self._sound(seconds, 0)

    def commit(self) -> None:
        """That was all; answer it."""
        self.asked_at = time.monotonic()
        self.send("input_audio_buffer.commit")
        self.send("response.create")

    def ask(self, text: str = "hello") -> None:
        """Write something, and have it answered."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        self.send("conversation.item.create", item=item)
        self.asked_at = time.monotonic()
        self.send("response.create")

    def acknowledge(self, turn: Turn, milliseconds: int | None = None) -> None:
        """So much of a turn was played: all that came, unless something else is said."""
        played = turn.milliseconds if milliseconds is None else milliseconds
        known = len(self.events("playback.acknowledged"))
        self.send("playback.ack", response_id=turn.response_id, played_ms=played)
        self.until(lambda: len(self.events("playback.acknowledged")) > known)

    def close(self) -> None:
        """End the session, and wait until it has."""
        self.send("session.close")
        self.until(lambda: bool(self.events("session.closed")) or self._heard.closed is not None)
        self._connection.close()

    def hang_up(self) -> None:
        """Be gone without a word."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)
        self._heard.closed = "hung up"

    # What it waits for

    def audio(self, count: int = 1) -> Turn:
        """The turn of this number, once its first audio is here."""
        self.until(lambda: len(self.turns) >= count and self.turns[count - 1].packets > 0)
        return self.turns[count - 1]

    def done(self, count: int = 1) -> Turn:
        """The turn of this number, once it is over."""
        self.until(lambda: len(self.turns) >= count and self.turns[count - 1].status is not None)
        return self.turns[count - 1]

    def wait(self, kind: str, *, or_error: bool = False) -> Event:
        """The first event of this type; raises :class:`ClosedError` for an error before it."""

        def there() -> bool:
            if or_error and self.events("error"):
                raise ClosedError(self.events("error")[0]["error"]["message"])
            return bool(self.events(kind))

        self.until(there)
        return self.events(kind)[0]

    def until(self, condition: Callable[[], bool]) -> None:
        """Raises :class:`ClosedError` where nothing more can make it true."""
        deadline = time.monotonic() + _SECONDS
        while not condition():
            with self._news:
                closed = self._heard.closed
                if not closed:
                    self._news.wait(0.2)
            if closed and not condition():
                raise ClosedError(closed)
            if time.monotonic() > deadline:
                raise ClosedError(f"nothing more in {_SECONDS:.0f} s")

    def _sound(self, seconds: float, loudness: int) -> None:
        samples = int(_CHUNK_SECONDS * _RATE)
        tone = [int(loudness * math.sin(2 * math.pi * 440 * i / _RATE)) for i in range(samples)]
        chunk = base64.b64encode(struct.pack(f"<{samples}h", *tone)).decode()
        due = time.monotonic()
        for _ in range(round(seconds / _CHUNK_SECONDS)):
            due += _CHUNK_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            self._sent_at = time.monotonic()
            self.send("input_audio_buffer.append", audio=chunk)

    def _read(self) -> None:
        try:
            for message in self._socket:
                event = json.loads(message)
                event["at"] = time.monotonic()
                with self._news:
                    self._take(event)
                    self._news.notify_all()
            end = "the server closed the connection"
        except (ConnectionClosed, OSError) as error:
            end = f"{type(error).__name__}: {error}"
        with self._news:
            self._heard.closed = self._heard.closed or end
            self._news.notify_all()

    def _take(self, event: Event) -> None:
        kind, turns = event["type"], self._heard.turns
        if kind == "response.created":
            name = event["response"]["id"]
            turns[name] = Turn(name, event["at"])
        turn = turns.get(str(event.get("response_id") or event.get("response", {}).get("id")))
        if turn is None and kind.startswith("response.output_audio.delta"):
            # It began on an earlier connection.
            turn = turns[event["response_id"]] = Turn(event["response_id"], event["at"])
        if turn is not None:
            if kind == "response.output_audio.delta":
                turn.samples += len(base64.b64decode(event.pop("delta"))) // 2
                turn.sample_rate = event.get("sample_rate_hz") or turn.sample_rate
                turn.packets += 1
                if turn.first_audio_at is None:
                    turn.first_audio_at = event["at"]
            elif kind in ("response.output_audio_transcript.delta", "response.output_text.delta"):
                turn.text += event["delta"]
            elif kind == "response.done":
                turn.status = event["response"]["status"]
                turn.reason = (event["response"].get("status_details") or {}).get("reason")
        self._heard.events.append(event)


def main() -> int:
    with Session(sys.argv[1]) as session:
        session.speak()
        session.commit()
        turn = session.done()
        session.acknowledge(turn)
    assert turn.first_audio_at is not None, "no audio came"
    print(f"{turn.status}: {turn.samples} samples, first after", end=" ")
    print(f"{turn.first_audio_at - session.asked_at:.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
