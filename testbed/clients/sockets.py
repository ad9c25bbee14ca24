"""The websocket endpoints, for the same independent client."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testbed.clients.audio import Answer, HungUpError, IncomingAnswer

_SECONDS = 120.0
#: Events that carry sound, and those that end it; each was "response.audio..." up to 0.28.
_AUDIO = ("response.output_audio.delta", "response.audio.delta")
_AUDIO_DONE = ("response.output_audio.done", "response.audio.done")


def speech(
    url: str,
    text: str = "hello world",
    *,
    tokens: int = 24,
    hang_up_after_packets: int | None = None,
) -> Answer:
    """``/v1/audio/speech/stream``: one utterance, its audio as it comes."""
    incoming = IncomingAnswer(hang_up_after_packets)

    def talk(connection: ClientConnection) -> None:
        for message in (_speech_config(tokens), {"type": "input.text", "text": text}):
            connection.send(json.dumps(message))
        incoming.start()
        connection.send(json.dumps({"type": "input.done"}))
        _hear(connection, incoming, until="session.done")

    return _converse(url, "/v1/audio/speech/stream", incoming, talk)


def utterances(
    url: str, *inputs: Sequence[float], tokens: int, leaves_after_seconds: float | None = None
) -> list[Answer]:
    """``/v1/audio/speech/stream`` with a request for each sentence; an answer for each input.

    An input is the seconds for which its speaker pauses before each of its sentences, having heard
    the one before. The client that leaves does so when the last input would be complete.
    """
    answers = []
    address = url.replace("http", "ws", 1) + "/v1/audio/speech/stream"
    with connect(address, max_size=None, compression=None) as connection:
        connection.send(json.dumps({**_speech_config(tokens), "split_granularity": "sentence"}))
        for number, pauses in enumerate(inputs):
            incoming = IncomingAnswer()
            incoming.status = 101
            for pause in pauses:
                time.sleep(pause)
                # A sentence ends for the endpoint when something follows.
                connection.send(json.dumps({"type": "input.text", "text": "Say something. "}))
                _hear(connection, incoming, until="audio.done")
            if leaves_after_seconds is not None and number == len(inputs) - 1:
                time.sleep(leaves_after_seconds)
                answers.append(incoming.answer(hung_up=True))
                break
            connection.send(json.dumps({"type": "input.done"}))
            _hear(connection, incoming, until="session.done")
            answers.append(incoming.answer())
    return answers


def _hear(connection: ClientConnection, incoming: IncomingAnswer, *, until: str) -> None:
    """What comes on ``/v1/audio/speech/stream``."""
    while True:
        received = connection.recv(_SECONDS)
        if isinstance(received, bytes):
            incoming.pcm(received)
            continue
        event = json.loads(received)
        if event["type"] == "error":
            incoming.failed(str(event))
        if event["type"] in (until, "error"):
            return


def _speech_config(tokens: int) -> dict[str, Any]:
    return {
        "type": "session.config",
        "voice": "vivian",
        "language": "English",
        "response_format": "pcm",
        "stream_audio": True,
        "max_new_tokens": tokens,
    }


def realtime(
    url: str,
    model: str,
    *,
    seconds: float = 0.5,
    pause_seconds: float = 0.0,
    hang_up_after_packets: int | None = None,
) -> Answer:
    """``/v1/realtime``: sound in, audio out.

    After ``seconds`` of sound the speaker pauses, if asked to, and says the same again. The clock
    starts when all of it is said.
    """
    incoming = IncomingAnswer(hang_up_after_packets)

    def talk(connection: ClientConnection) -> None:
        connection.send(json.dumps({"type": "session.update", "model": model}))
        sound = base64.b64encode(_tone(seconds)).decode()
        says = json.dumps({"type": "input_audio_buffer.append", "audio": sound})
        connection.send(says)
        if not pause_seconds:
            incoming.start()
        connection.send(json.dumps({"type": "input_audio_buffer.commit", "final": False}))
        if pause_seconds:
            time.sleep(pause_seconds)
            connection.send(says)
            incoming.start()
        connection.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        while True:
            event = json.loads(connection.recv(_SECONDS))
            if event["type"] in _AUDIO:
                incoming.pcm(base64.b64decode(event["audio"]), event["sample_rate_hz"])
            elif event["type"] == "error":
                incoming.failed(str(event))
                return
            elif event["type"] in _AUDIO_DONE:
                return

    return _converse(url, "/v1/realtime", incoming, talk)


def video_chat(url: str, *, hang_up_after_packets: int | None = None) -> Answer:
    """``/v1/video/chat/stream``: a question about one picture, audio out."""
    incoming = IncomingAnswer(hang_up_after_packets)

    def talk(connection: ClientConnection) -> None:
        config = {"type": "session.config", "modalities": ["text", "audio"]}
        picture = base64.b64encode(_picture()).decode()
        frame = {"type": "video.frame", "frame_id": "one", "data": picture}
        query = {"type": "video.query", "text": "what is this?"}
        for message in (config, frame):
            connection.send(json.dumps(message))
        while json.loads(connection.recv(_SECONDS))["type"] != "video.frame.ack":
            pass  # the server looks at the frame when it comes, not when it is asked about
        incoming.start()
        connection.send(json.dumps(query))
        while True:
            event = json.loads(connection.recv(_SECONDS))
            if event["type"] in _AUDIO:
                incoming.wav(base64.b64decode(event["data"]))
            elif event["type"] == "error":
                incoming.failed(str(event))
                return
            elif event["type"] in _AUDIO_DONE:
                return

    return _converse(url, "/v1/video/chat/stream", incoming, talk)


def _converse(
    url: str, path: str, incoming: IncomingAnswer, talk: Callable[[ClientConnection], None]
) -> Answer:
    address = url.replace("http", "ws", 1) + path
    try:
        with connect(address, max_size=None, compression=None) as connection:
            incoming.status = 101
            talk(connection)
    except HungUpError:
        return incoming.answer(hung_up=True)
    except (InvalidStatus, ConnectionClosed, OSError) as error:
        incoming.failed(f"{type(error).__name__}: {error}")
    return incoming.answer()


def _tone(seconds: float, rate: int = 16000) -> bytes:
    samples = range(int(seconds * rate))
    return b"".join(struct.pack("<h", int(8000 * math.sin(i / 20))) for i in samples)


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(buffer, "JPEG")
    return buffer.getvalue()
