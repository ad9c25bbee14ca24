"""Endpoint by moment of failure: what the client was answered is how its request is counted.

The encoder fails when a file says so, by a package beside the plugin.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from testbed.clients import audio, sockets, visual
from testbed.server import Server
from tests.e2e.conftest import ON, is_running, observing, outcomes
from tests.e2e.engine import engine_has

#: By stop or length, whichever it is.
SERVED = "served"
#: What the speech endpoint makes of a failure of its own.
FAILED = "error" if engine_has("speech that fails is answered with 500") else "rejected"

SABOTAGE = """
import os, pathlib, sys

def register():
    serving = sys.modules.get("vllm_omni.entrypoints.openai.serving_speech")
    if serving is None or hasattr(serving, "_sabotaged"):
        return
    serving._sabotaged = True
    encoders = serving.OmniOpenAIServingSpeech
    create_audio = encoders.create_audio
    when = pathlib.Path(os.environ["SABOTAGE"])

    def sabotaged(self, *args, **kwargs):
        calls = int(when.read_text() or 0)
        if calls:
            when.write_text(str(calls - 1))
            if calls == 1:
                raise OSError("the encoder failed")
        return create_audio(self, *args, **kwargs)

    encoders.create_audio = sabotaged
"""


class Sabotage:
    """Makes the encoder fail at its next call but so many."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "calls"
        package = folder / "sabotage-1.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: sabotage\nVersion: 1\n")
        (package / "entry_points.txt").write_text(
            "[vllm.general_plugins]\nsabotage = sabotage:register\n"
            "[vllm_omni.general_plugins]\nsabotage = sabotage:register\n"
        )
        (folder / "sabotage.py").write_text(SABOTAGE)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        self.environment = {"PYTHONPATH": path, "SABOTAGE": str(self._file)}
        self.at_call(0)

    def at_call(self, number: int) -> None:
        self._file.write_text(str(number))


@pytest.fixture(scope="module")
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> Sabotage:
    return Sabotage(tmp_path_factory.mktemp("sabotage"))


@pytest.fixture(scope="module")
def speech(sabotage: Sabotage, logs: Path) -> Iterator[Server]:
    environment = {**ON, **sabotage.environment}
    with Server("tts", env=environment, log_path=logs / "outcomes.log") as server:
        yield server


def batch(url: str, items: int = 2) -> None:
    post(
        url,
        "/v1/audio/speech/batch",
        {
            "items": [{"input": f"item {number}"} for number in range(items)],
            "voice": "vivian",
            "language": "English",
            "max_new_tokens": 8,
            "response_format": "wav",
        },
    )


def post(url: str, path: str, body: object) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def whole_over_a_websocket(url: str, text: str = "hello world") -> None:
    with connect(f"ws{url.removeprefix('http')}/v1/audio/speech/stream", max_size=None) as talk:
        for message in (
            {
                "type": "session.config",
                "voice": "vivian",
                "language": "English",
                "response_format": "wav",
                "stream_audio": False,
                "max_new_tokens": 24,
            },
            {"type": "input.text", "text": text},
            {"type": "input.done"},
        ):
            talk.send(json.dumps(message))
        while True:
            received = talk.recv(60)
            if isinstance(received, str) and json.loads(received)["type"] == "session.done":
                return


def leaves(path: str, body: object) -> Callable[[Server], None]:
    """A client that goes when its request runs, however long its body is."""

    def call(server: Server) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + data)
            while not is_running(server):
                time.sleep(0.02)

    return call


def to(call: Callable[..., object], **arguments: Any) -> Callable[[Server], object]:
    return lambda server: call(server.url, **arguments)


LONG = "x" * 3000
SPEECH = {
    "input": "hello world",
    "voice": "vivian",
    "language": "English",
    "max_new_tokens": 250,
    "response_format": "wav",
}
raw = functools.partial(audio.speech, stream="audio")
sse = functools.partial(audio.speech, stream="sse")

#: What is asked, at which call of the encoder it fails (0: never), and what is counted.
SPEECH_ROWS: dict[str, tuple[Callable[[Server], object], int, dict[str, int]]] = {
    "whole": (to(audio.speech), 0, {SERVED: 1}),
    "raw": (to(raw), 0, {SERVED: 1}),
    "sse": (to(sse), 0, {SERVED: 1}),
    "websocket": (to(sockets.speech), 0, {SERVED: 1}),
    "websocket, whole": (to(whole_over_a_websocket), 0, {SERVED: 1}),
    "batch": (to(batch), 0, {SERVED: 2}),
    "malformed": (lambda s: post(s.url, "/v1/audio/speech", {"input": 5}), 0, {}),
    "no such path": (lambda s: post(s.url, "/v1/audio/song", {}), 0, {}),
    "no such voice": (to(audio.speech, voice="nobody"), 0, {}),
    "no such voice, raw": (to(raw, voice="nobody"), 0, {}),
    "nothing to say": (to(audio.speech, text=""), 0, {}),
    "chat with a speech model": (to(audio.chat), 0, {}),
    "too long": (to(audio.speech, text=LONG), 0, {FAILED: 1}),
    "too long, raw": (to(raw, text=LONG), 0, {"error": 1}),
    "too long, sse": (to(sse, text=LONG), 0, {"error": 1}),
    "too long, websocket": (to(sockets.speech, text=LONG), 0, {"error": 1}),
    "no sound, 400": (to(audio.speech, tokens=1), 0, {"rejected": 1}),
    "encoder, whole": (to(audio.speech), 1, {FAILED: 1}),
    "encoder, first packet, raw": (to(raw), 1, {"error": 1}),
    "encoder, third packet, raw": (to(raw), 3, {"error": 1}),
    "encoder, first packet, sse": (to(sse), 1, {"error": 1}),
    "encoder, third packet, sse": (to(sse), 3, {"error": 1}),
    "encoder, first packet, websocket": (to(sockets.speech), 1, {"error": 1}),
    "encoder, third packet, websocket": (to(sockets.speech), 3, {"error": 1}),
    "encoder, websocket, whole": (to(whole_over_a_websocket), 1, {"error": 1}),
    "encoder, item of a batch": (to(batch, items=3), 2, {SERVED: 2, "error": 1}),
    "left, raw": (to(raw, tokens=250, hang_up_after_packets=1), 0, {"abort": 1}),
    "left, sse": (to(sse, tokens=250, hang_up_after_packets=2), 0, {"abort": 1}),
    "left, websocket": (
        to(sockets.speech, tokens=250, hang_up_after_packets=1),
        0,
        {"abort": 1},
    ),
    "left, whole": (leaves("/v1/audio/speech", SPEECH), 0, {"abort": 1}),
    "left, whole, long body": (
        leaves("/v1/audio/speech", {**SPEECH, "user": "x" * 300_000}),
        0,
        {"abort": 1},
    ),
}


@pytest.mark.parametrize("row", SPEECH_ROWS)
def test_speech_is_counted_as_it_was_answered(speech: Server, sabotage: Sabotage, row: str) -> None:
    call, fails_at, expected = SPEECH_ROWS[row]
    sabotage.at_call(fails_at)
    assert_counted(speech, call, expected)


logprobs = functools.partial(
    audio.chat, modalities=("text",), logprobs=True, top_logprobs=2, tokens=8
)
CHAT_ROWS: dict[str, tuple[Callable[[Server], object], dict[str, int]]] = {
    "whole": (to(audio.chat), {SERVED: 1}),
    "stream": (to(audio.chat, stream=True), {SERVED: 1}),
    "text": (to(audio.chat, modalities=("text",)), {SERVED: 1}),
    "malformed": (lambda s: post(s.url, "/v1/chat/completions", {"messages": 5}), {}),
    "logprobs, 500": (to(logprobs), {"error": 1}),
    "logprobs, stream": (to(logprobs, stream=True), {"error": 1}),
    "left, stream": (
        to(audio.chat, tokens=200, stream=True, hang_up_after_packets=1),
        {"abort": 1},
    ),
    "realtime": (lambda s: sockets.realtime(s.url, s.model), {SERVED: 1}),
    "left, realtime": (
        lambda s: sockets.realtime(s.url, s.model, hang_up_after_packets=1),
        {"abort": 1},
    ),
    "video chat": (to(sockets.video_chat), {SERVED: 1}),
    "left, video chat": (to(sockets.video_chat, hang_up_after_packets=1), {"abort": 1}),
}


@pytest.mark.parametrize("row", CHAT_ROWS)
def test_chat_is_counted_as_it_was_answered(chat_server: Server, row: str) -> None:
    assert_counted(chat_server, *CHAT_ROWS[row])


def left_form(url: str, path: str, prompt: str = "a red cube") -> None:
    """A client that goes when its video is being made; a long prompt is a long upload."""
    boundary = "bound"
    fields = {
        "prompt": prompt,
        "num_frames": 17,
        "fps": 8,
        "size": "128x128",
        "num_inference_steps": 6,
        "seed": 1,
    }
    data = "".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    data += f"--{boundary}--\r\n"
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\n"
            f"content-type: multipart/form-data; boundary={boundary}\r\n"
            f"content-length: {len(data)}\r\n\r\n{data}".encode()
        )
        time.sleep(0.4)


VIDEO_ROWS: dict[str, tuple[Callable[[Server], object], dict[str, int]]] = {
    "sync": (to(visual.video), {SERVED: 1}),
    "job": (to(visual.video_job), {SERVED: 1}),
    "websocket": (to(visual.video_stream), {SERVED: 1}),
    "malformed": (lambda s: post(s.url, "/v1/videos/sync", {}), {}),
    "chat with a video model, 500": (to(visual.chat), {"error": 1}),
    "left, sync": (to(left_form, path="/v1/videos/sync"), {"abort": 1}),
    "left, sync, long upload": (
        to(left_form, path="/v1/videos/sync", prompt="x " * 100_000),
        {"abort": 1},
    ),
    "job, deleted": (
        to(visual.video_job, size="128x128", frames=17, steps=8, cancel=True),
        {"abort": 1},
    ),
}


@pytest.mark.parametrize("row", VIDEO_ROWS)
def test_video_is_counted_as_it_was_answered(video_server: Server, row: str) -> None:
    assert_counted(video_server, *VIDEO_ROWS[row])


def assert_counted(
    server: Server, call: Callable[[Server], object], expected: dict[str, int]
) -> None:
    with observing(server) as seen:
        answer = call(server)
        time.sleep(0.2)  # a request that the server has not read yet is not seen as open

    counted: dict[str, float] = {}
    for reason, count in outcomes(seen.gained).items():
        word = SERVED if reason in ("stop", "length") else reason
        counted[word] = counted.get(word, 0) + count
    assert counted == expected, answer
    served = expected.get(SERVED, 0)
    assert seen.gained.sum("vllm:omni_e2e_request_latency_seconds_count") == served
    for family in ("audio_duration_seconds", "image_pixels", "video_duration_seconds"):
        assert seen.gained.sum(f"vllm:omni_{family}_count") <= served, family
