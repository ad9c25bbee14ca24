"""An independent client for images and videos: it opens what it gets and counts what is in it.

It shares no code with the plugin. Times are seconds from just before the request is sent to just
after the answer is complete; what it takes to open the answer is not in them.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import av
import httpx
from PIL import Image
from websockets.sync.client import connect

_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Answer:
    """What came back."""

    #: HTTP status, 101 for a websocket that opened, 0 if there was no answer at all.
    status: int
    total_seconds: float = 0.0
    #: Width and height of each image.
    sizes: tuple[tuple[int, int], ...] = ()
    #: Of the video, counted by decoding them.
    frames: int = 0
    #: Hz, from the video file; None without a video.
    frame_rate: float | None = None
    error: str | None = None
    #: This client cancelled the job or closed the connection on purpose.
    cancelled: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the server took the request on, whatever became of it."""
        return not 400 <= self.status < 500

    @property
    def pixels(self) -> int:
        """Of all images together."""
        return sum(width * height for width, height in self.sizes)

    @property
    def video_seconds(self) -> float:
        return self.frames / self.frame_rate if self.frame_rate else 0.0


def images(
    url: str,
    text: str = "a red cube",
    *,
    n: int = 1,
    size: str = "64x64",
    steps: int = 2,
    timeout: float = _SECONDS,
    traceparent: str | None = None,
    **more: Any,
) -> Answer:
    """``/v1/images/generations``; ``timeout`` seconds later this client hangs up.

    ``traceparent`` is the client's own trace, as the header has it.
    """
    body = {"prompt": text, "n": n, "size": size, "num_inference_steps": steps, "seed": 1, **more}
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return _pictures(_post(f"{url}/v1/images/generations", timeout, json=body, headers=headers))


def edit(
    url: str,
    text: str = "make it blue",
    *,
    n: int = 1,
    size: tuple[int, int] = (64, 96),
    steps: int = 2,
    **more: Any,
) -> Answer:
    """``/v1/images/edits`` of a red picture of this width and height."""
    picture = io.BytesIO()
    Image.new("RGB", size, "red").save(picture, "PNG")
    form = {"prompt": text, "n": n, "num_inference_steps": steps, "seed": 1, **more}
    files = {"image": ("picture.png", picture.getvalue(), "image/png")}
    return _pictures(_post(f"{url}/v1/images/edits", data=_text(form), files=files))


def chat(
    url: str, text: str = "a red cube", *, n: int = 1, size: str = "64x64", steps: int = 2
) -> Answer:
    """``/v1/chat/completions`` of a model that answers in pictures."""
    settings = {"num_outputs_per_prompt": n, "size": size, "num_inference_steps": steps, "seed": 1}
    body = {"messages": [{"role": "user", "content": text}], "extra_body": settings}
    answer, content = _post(f"{url}/v1/chat/completions", json=body)
    if not content:
        return answer
    parts = json.loads(content)["choices"][0]["message"]["content"]
    return replace(answer, sizes=_sizes(p["image_url"]["url"].partition(",")[2] for p in parts))


def video(
    url: str,
    text: str = "a red cube",
    *,
    frames: int = 9,
    fps: float | None = 8,
    size: str = "64x64",
    steps: int = 2,
    **more: Any,
) -> Answer:
    """``/v1/videos/sync``: the file is the answer."""
    form = _video_form(text, frames, fps, size, steps, more)
    answer, content = _post(f"{url}/v1/videos/sync", files=form)
    return _video(answer, content)


def video_job(
    url: str,
    text: str = "a red cube",
    *,
    frames: int = 9,
    fps: float | None = 8,
    size: str = "64x64",
    steps: int = 2,
    cancel: bool = False,
    **more: Any,
) -> Answer:
    """``/v1/videos``: order, look until it is done, fetch; ``cancel`` deletes it when it runs."""
    began = time.perf_counter()
    form = _video_form(text, frames, fps, size, steps, more)
    answer, content = _post(f"{url}/v1/videos", files=form)
    if not content:
        return answer
    job = f"{url}/v1/videos/{json.loads(content)['id']}"
    while True:
        state = httpx.get(job, timeout=_SECONDS).json()
        if cancel and state["status"] == "in_progress":
            deleted = httpx.delete(job, timeout=_SECONDS)
            return replace(answer, status=deleted.status_code, cancelled=True)
        if state["status"] in ("completed", "failed"):
            break
        if time.perf_counter() - began > _SECONDS:
            return replace(answer, error=f"still {state['status']}")
        time.sleep(_POLL_SECONDS)
    total = time.perf_counter() - began
    if state["status"] == "failed":
        return replace(answer, total_seconds=total, error=str(state.get("error")))
    file = httpx.get(f"{job}/content", timeout=_SECONDS)
    return _video(replace(answer, status=file.status_code, total_seconds=total), file.content)


def video_stream(
    url: str, text: str = "a red cube", *, frames: int = 9, fps: int = 8, steps: int = 2
) -> Answer:
    """``/v1/realtime/video``: the file in pieces, over a websocket."""
    file = b""
    with connect(f"ws{url.removeprefix('http')}/v1/realtime/video", max_size=None) as connection:
        began = time.perf_counter()
        start = {
            "type": "session.start",
            "prompt": text,
            "num_frames": frames,
            "fps": fps,
            "size": "64x64",
            "num_inference_steps": steps,
        }
        connection.send(json.dumps(start))
        while True:
            received = connection.recv(_SECONDS)
            if isinstance(received, bytes):
                file += received
                continue
            event = json.loads(received)
            if event["type"] == "error":
                return Answer(status=101, error=str(event))
            if event["type"] == "session.done":
                total = time.perf_counter() - began
                return _video(Answer(status=101, total_seconds=total), file)


def _video_form(
    text: str, frames: int, fps: float | None, size: str, steps: int, more: Mapping[str, Any]
) -> dict[str, Any]:
    form = {"prompt": text, "num_frames": frames, "size": size, "num_inference_steps": steps}
    if fps is not None:
        form["fps"] = fps
    # The endpoint takes multipart forms alone; a field without a file name is a plain field.
    return {name: (None, value) for name, value in _text({**form, "seed": 1, **more}).items()}


def _text(form: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in form.items()
    }


def _post(address: str, timeout: float = _SECONDS, **request: Any) -> tuple[Answer, bytes]:
    # Without TLS there is nothing to verify, and loading the certificates would take its time.
    session = httpx.Client(timeout=timeout, verify=False)
    began = time.perf_counter()
    try:
        response = session.post(address, **request)
    except httpx.TimeoutException:
        return Answer(0, time.perf_counter() - began, cancelled=True), b""
    except httpx.HTTPError as error:
        return Answer(0, time.perf_counter() - began, error=f"{type(error).__name__}: {error}"), b""
    finally:
        session.close()
    answer = Answer(response.status_code, time.perf_counter() - began)
    if response.status_code != 200:
        return replace(answer, error=response.text), b""
    return answer, response.content


def _pictures(answered: tuple[Answer, bytes]) -> Answer:
    answer, content = answered
    if not content:
        return answer
    return replace(answer, sizes=_sizes(item["b64_json"] for item in json.loads(content)["data"]))


def _sizes(encoded: Iterable[str]) -> tuple[tuple[int, int], ...]:
    sizes = []
    for picture in encoded:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            opened.load()
            sizes.append(opened.size)
    return tuple(sizes)


def _video(answer: Answer, file: bytes) -> Answer:
    if not file:
        return answer
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        rate = stream.average_rate
    return replace(answer, frames=frames, frame_rate=float(rate) if rate else None)
