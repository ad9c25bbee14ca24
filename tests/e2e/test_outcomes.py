"""Endpoint by moment of failure: what the client was answered is how its request is counted.

The encoder fails when a file says so, by a package beside the plugin.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from testbed.clients import audio, sockets, visual
from testbed.server import Server
from tests.e2e import access
from tests.e2e.conftest import failures, is_running, observing, outcomes
from tests.e2e.engine import engine_has
from tests.e2e.verdicts import assert_verdicts_agree

Folders = pytest.TempPathFactory
#: By transport and route.
Where = tuple[str, str]
#: By stop or length, whichever it is.
SERVED = "served"
#: What the speech endpoint makes of a failure of its own.
FAILED = "error" if engine_has("speech that fails is answered with 500") else "rejected"

SABOTAGE = """
import functools, os, pathlib, sys

def sabotaged(encode):
    @functools.wraps(encode)
    def encoder(*args, **kwargs):
        when = pathlib.Path(os.environ["SABOTAGE"])
        calls = int(when.read_text() or 0)
        if calls:
            when.write_text(str(calls - 1))
            if calls == 1:
                raise OSError("the encoder failed")
        return encode(*args, **kwargs)

    return encoder

class StreamEncoder:
    def __init__(self, encoder):
        self._encoder = encoder
        self.encode = sabotaged(encoder.encode)

    def __getattr__(self, name):
        return getattr(self._encoder, name)

def register():
    modules = [
        sys.modules.get("vllm_omni.entrypoints.openai." + name)
        for name in ("serving_speech", "api_server", "serving_video", "serving_video_output_stream")
    ]
    if None in modules or hasattr(modules[0], "_sabotaged"):
        return
    speech, api, video, stream = modules
    speech._sabotaged = True
    encoders = speech.OmniOpenAIServingSpeech
    encoders.create_audio = sabotaged(encoders.create_audio)
    pictures = "encode_image_base64_with_compression"
    for module in (api, sys.modules["vllm_omni.entrypoints.openai.serving_chat"]):
        if hasattr(module, pictures):
            setattr(module, pictures, sabotaged(getattr(module, pictures)))
    video._encode_video_bytes = sabotaged(video._encode_video_bytes)
    create = stream.create_streaming_video_encoder
    stream.create_streaming_video_encoder = lambda **kwargs: StreamEncoder(create(**kwargs))
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
        self._folder = folder
        self.at_call(0)

    def of(self, judging: dict[str, str], folder: Path) -> dict[str, str]:
        """The environment of a server that judges its requests, and logs them in ``folder``."""
        logged = access.logging_requests(folder, self._folder)
        return {**judging, **logged, "SABOTAGE": str(self._file)}

    def at_call(self, number: int) -> None:
        self._file.write_text(str(number))


@pytest.fixture(scope="module")
def sabotage(tmp_path_factory: pytest.TempPathFactory) -> Sabotage:
    return Sabotage(tmp_path_factory.mktemp("sabotage"))


@pytest.fixture(scope="module")
def speech(
    sabotage: Sabotage, logs: Path, judging: dict[str, str], tmp_path_factory: Folders
) -> Iterator[Server]:
    environment = sabotage.of(judging, tmp_path_factory.mktemp("speech"))
    with Server("tts", env=environment, log_path=logs / "outcomes.log") as server:
        yield server


@pytest.fixture(scope="module")
def pictures(
    sabotage: Sabotage, logs: Path, judging: dict[str, str], tmp_path_factory: Folders
) -> Iterator[Server]:
    environment = sabotage.of(judging, tmp_path_factory.mktemp("pictures"))
    with Server("image", env=environment, log_path=logs / "pictures.log") as server:
        visual.images(server.url)
        yield server


@pytest.fixture(scope="module")
def videos(
    sabotage: Sabotage, logs: Path, judging: dict[str, str], tmp_path_factory: Folders
) -> Iterator[Server]:
    environment = sabotage.of(judging, tmp_path_factory.mktemp("videos"))
    with Server("video", env=environment, log_path=logs / "videos.log") as server:
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


#: By a word of a row, where its client calls; the first that fits.
SPEECH_WHERE: dict[str, Where] = {
    "batch": ("http", "/v1/audio/speech/batch"),
    "websocket": ("websocket", "/v1/audio/speech/stream"),
    "": ("http", "/v1/audio/speech"),
}


@pytest.mark.parametrize("row", SPEECH_ROWS)
def test_speech_is_counted_as_it_was_answered(speech: Server, sabotage: Sabotage, row: str) -> None:
    call, fails_at, expected = SPEECH_ROWS[row]
    sabotage.at_call(fails_at)
    assert_counted(speech, call, expected, row, SPEECH_WHERE, "sound")


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


CHAT_WHERE: dict[str, Where] = {
    "realtime": ("websocket", "/v1/realtime"),
    "video chat": ("websocket", "/v1/video/chat/stream"),
    "": ("http", "/v1/chat/completions"),
}


@pytest.mark.parametrize("row", CHAT_ROWS)
def test_chat_is_counted_as_it_was_answered(chat_server: Server, row: str) -> None:
    assert_counted(chat_server, *CHAT_ROWS[row], row, CHAT_WHERE)


def left_form(
    path: str, fields: dict[str, object], picture: bytes | None = None
) -> Callable[[Server], None]:
    """A client that goes when the engine works for it, with a picture to upload or without."""
    boundary = "bound"

    def part(name: str, value: bytes, more: str = "") -> bytes:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'
        return head.encode() + value + b"\r\n"

    data = b"".join(part(name, str(value).encode()) for name, value in fields.items())
    if picture is not None:
        data += part("image", picture, '; filename="picture.png"\r\ncontent-type: image/png')
    data += f"--{boundary}--\r\n".encode()

    def call(server: Server) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nhost: {host}\r\n"
                f"content-type: multipart/form-data; boundary={boundary}\r\n"
                f"content-length: {len(data)}\r\n\r\n".encode()
                + data
            )
            while not is_running(server):
                time.sleep(0.02)

    return call


def noise(side: int) -> bytes:
    """A picture that does not compress: its file has about ``3 * side ** 2`` bytes."""
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(file, "PNG")
    return file.getvalue()


PICTURE = {"prompt": "a red cube", "size": "256x256", "num_inference_steps": 40, "seed": 1}
EDIT = {"prompt": "make it blue", "num_inference_steps": 40, "seed": 1}
PICTURE_CHAT = {
    "messages": [{"role": "user", "content": "a red cube"}],
    "extra_body": {"size": "256x256", "num_inference_steps": 40, "seed": 1},
}
PICTURE_ROWS: dict[str, tuple[Callable[[Server], object], int, dict[str, int]]] = {
    "generations": (to(visual.images), 0, {SERVED: 1}),
    "generations, three": (to(visual.images, n=3), 0, {SERVED: 1}),
    "edits": (to(visual.edit), 0, {SERVED: 1}),
    "chat": (to(visual.chat), 0, {SERVED: 1}),
    "malformed": (lambda s: post(s.url, "/v1/images/generations", {"n": "x"}), 0, {}),
    "no such size": (to(visual.images, size="large"), 0, {}),
    "edits, no picture": (lambda s: post(s.url, "/v1/images/edits", {}), 0, {}),
    "encoder, generations": (to(visual.images), 1, {"error": 1}),
    "encoder, second of three": (to(visual.images, n=3), 2, {"error": 1}),
    "encoder, edits": (to(visual.edit), 1, {"error": 1}),
    "left, generations": (leaves("/v1/images/generations", PICTURE), 0, {"abort": 1}),
    "left, generations, long body": (
        leaves("/v1/images/generations", {**PICTURE, "user": "x" * 300_000}),
        0,
        {"abort": 1},
    ),
    "left, chat": (leaves("/v1/chat/completions", PICTURE_CHAT), 0, {"abort": 1}),
    "left, edits": (left_form("/v1/images/edits", EDIT, noise(64)), 0, {"abort": 1}),
    "left, edits, long upload": (
        left_form("/v1/images/edits", EDIT, noise(256)),
        0,
        {"abort": 1},
    ),
}


PICTURE_WHERE: dict[str, Where] = {
    "edits": ("http", "/v1/images/edits"),
    "chat": ("http", "/v1/chat/completions"),
    "": ("http", "/v1/images/generations"),
}


@pytest.mark.parametrize("row", PICTURE_ROWS)
def test_picture_is_counted_as_it_was_answered(
    pictures: Server, sabotage: Sabotage, row: str
) -> None:
    call, fails_at, expected = PICTURE_ROWS[row]
    sabotage.at_call(fails_at)
    assert_counted(pictures, call, expected, row, PICTURE_WHERE, "pictures")


def leaves_video_stream(server: Server) -> None:
    """A client that closes its websocket when its video is being made."""
    with connect(f"ws{server.url.removeprefix('http')}/v1/realtime/video") as connection:
        connection.send(json.dumps({"type": "session.start", **VIDEO}))
        while not is_running(server):
            time.sleep(0.02)


def stops_video_stream(server: Server) -> None:
    """A client that asks to stop when its video is being made, and waits."""
    with connect(f"ws{server.url.removeprefix('http')}/v1/realtime/video") as connection:
        connection.send(json.dumps({"type": "session.start", **VIDEO}))
        while not is_running(server):
            time.sleep(0.02)
        connection.send(json.dumps({"type": "session.stop"}))
        with contextlib.suppress(ConnectionClosed):
            while True:
                received = connection.recv(60)
                if isinstance(received, str) and json.loads(received)["type"] == "session.done":
                    return


VIDEO: dict[str, object] = {
    "prompt": "a red cube",
    "num_frames": 17,
    "fps": 8,
    "size": "128x128",
    "num_inference_steps": 8,
    "seed": 1,
}


VIDEO_ROWS: dict[str, tuple[Callable[[Server], object], int, dict[str, int]]] = {
    "sync": (to(visual.video), 0, {SERVED: 1}),
    "job": (to(visual.video_job), 0, {SERVED: 1}),
    "websocket": (to(visual.video_stream), 0, {SERVED: 1}),
    "malformed": (lambda s: post(s.url, "/v1/videos/sync", {}), 0, {}),
    "chat with a video model, 500": (to(visual.chat), 0, {"error": 1}),
    "encoder, sync": (to(visual.video), 1, {"error": 1}),
    "encoder, job": (to(visual.video_job), 1, {"error": 1}),
    "encoder, websocket": (to(visual.video_stream), 1, {"error": 1}),
    "left, sync": (left_form("/v1/videos/sync", VIDEO), 0, {"abort": 1}),
    "left, sync, long upload": (
        left_form("/v1/videos/sync", {**VIDEO, "prompt": "x " * 100_000}),
        0,
        {"abort": 1},
    ),
    "left, websocket": (leaves_video_stream, 0, {"abort": 1}),
    "stopped, websocket": (stops_video_stream, 0, {"abort": 1}),
    "job, deleted": (
        to(visual.video_job, size="128x128", frames=17, steps=8, cancel=True),
        0,
        {"abort": 1},
    ),
}


VIDEO_WHERE: dict[str, Where] = {
    "job": ("job", "/v1/videos"),
    "websocket": ("websocket", "/v1/realtime/video"),
    "chat": ("http", "/v1/chat/completions"),
    "": ("http", "/v1/videos/sync"),
}


@pytest.mark.parametrize("row", VIDEO_ROWS)
def test_video_is_counted_as_it_was_answered(videos: Server, sabotage: Sabotage, row: str) -> None:
    call, fails_at, expected = VIDEO_ROWS[row]
    sabotage.at_call(fails_at)
    assert_counted(videos, call, expected, row, VIDEO_WHERE)


#: By what a row begins with, why its request failed.
WHY = {
    "left": "client_disconnect",
    "stopped": "client_abort",
    "job, deleted": "client_abort",
    "encoder": "endpoint_error",
    "too long": "invalid_request",
    "no sound": "invalid_request",
    "logprobs": "endpoint_error",
    "chat with a video model": "endpoint_error",
}


def why(row: str) -> str:
    return next(reason for beginning, reason in WHY.items() if row.startswith(beginning))


def assert_counted(
    server: Server,
    call: Callable[[Server], object],
    expected: dict[str, int],
    row: str,
    where: dict[str, Where],
    about_all: str | None = None,
) -> None:
    """``about_all``: the objective that is about each of the server's requests."""
    logged = len(access.lines(server))
    with observing(server) as seen:
        answer = call(server)
        time.sleep(0.2)  # a request that the server has not read yet is not seen as open

    counted: dict[str, float] = {}
    for reason, count in outcomes(seen.gained).items():
        word = SERVED if reason in ("stop", "length") else reason
        counted[word] = counted.get(word, 0) + count
    assert counted == expected, answer
    count = sum(expected.values()) - expected.get(SERVED, 0)
    assert failures(seen.gained) == ({why(row): count} if count else {}), answer
    served = expected.get(SERVED, 0)
    assert seen.gained.sum("vllm:omni_e2e_request_latency_seconds_count") == served
    once = ("audio_duration_seconds", "image_generation_time_seconds", "video_duration_seconds")
    for family in once:
        assert seen.gained.sum(f"vllm:omni_{family}_count") <= served, family
    assert_verdicts_agree(seen.gained, about_all)
    gained = access.await_lines(server, logged, sum(expected.values()))
    assert len(gained) == sum(expected.values())
    assert {line["failure"] for line in gained} - {None} == ({why(row)} if count else set())
    called = next(place for word, place in where.items() if word in row)
    access.assert_log_agrees(gained, called, answer, seen.gained)
