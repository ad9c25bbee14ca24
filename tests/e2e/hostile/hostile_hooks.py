"""Hook plugins that misbehave, inside a real server, and the means to let them loose from outside.

``POST /register?fault=raises``, ``/unregister?name=raises``, ``/release``, ``/flush`` and
``/report`` on the port ``HOSTILE_HOOKS_PORT``; every answer is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlparse

from vllm_omni_metrics_plugin.hooks import Event, hookimpl, plugins

#: The hooks that a request's way through the server calls a known number of times, and packets.
HOOKS = (
    "omni_request_arrived",
    "omni_stage_submitted",
    "omni_stage_finished",
    "omni_media_packet",
    "omni_audio_finished",
    "omni_request_finished",
)
SLEEP_SECONDS = 0.2


class Good:
    """Counts what it hears, and adds up the audio."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.frames = 0


class Stalls:
    """Notes when packets left and when it was told of stalls, in their order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, float]]] = []

    @hookimpl
    def omni_media_packet(self, event: Any) -> None:
        about = {"left_at": event.left_at, "seconds": event.samples / event.sample_rate}
        self.heard.append(("packet", about))

    @hookimpl
    def omni_playback_stalled(self, event: Any) -> None:
        if event.buffer_seconds == 0:
            about = {"stalled_at": event.stalled_at, "played_seconds": event.played_seconds}
            self.heard.append(("stall", {**about, "told_at": time.monotonic()}))


def _hearing(hook: str) -> Any:
    def hear(self: Good, event: Any) -> None:
        self.heard[hook] += 1
        if hook == "omni_media_packet":
            self.frames += event.samples

    return hookimpl(hear)


for _hook in HOOKS:
    setattr(Good, _hook, _hearing(_hook))


def raises(hook: str, event: Event) -> object:
    raise RuntimeError("hostile")


def exits(hook: str, event: Event) -> object:
    sys.exit(1)


def returns_garbage(hook: str, event: Event) -> object:
    return b"garbage" * 1000


def recurses(hook: str, event: Event) -> object:
    return recurses(hook, event)


def calls_its_hook(hook: str, event: Event) -> object:
    return getattr(plugins.hooks, hook)(event)


def returns_a_coroutine(hook: str, event: Event) -> object:
    async def never_awaited() -> None: ...

    return never_awaited()


def sleeps(hook: str, event: Event) -> object:
    if hook == "omni_media_packet":
        control.note_thread()
        time.sleep(SLEEP_SECONDS)
    return None


def hangs(hook: str, event: Event) -> object:
    control.note_thread()
    control.released.wait()
    return None


FAULTS = {
    function.__name__: function
    for function in (
        raises,
        exits,
        returns_garbage,
        recurses,
        calls_its_hook,
        returns_a_coroutine,
        sleeps,
        hangs,
    )
}


def hostile(fault: str) -> object:
    """A plugin that does so in each of the hooks; the one that hangs says that it is slow."""

    def implementing(hook: str) -> Any:
        def implementation(self: object, event: Event) -> object:
            return FAULTS[fault](hook, event)

        return hookimpl(slow=fault == "hangs")(implementation)

    return type(fault, (), {hook: implementing(hook) for hook in HOOKS})()


class Control:
    """Does what a test asks for over HTTP."""

    def __init__(self) -> None:
        self.good: Good | None = None
        self.stalls: Stalls | None = None
        self.released = threading.Event()
        self.inline = 0
        self._server: ThreadingHTTPServer | None = None

    @hookimpl
    def omni_configured(self, event: Any) -> None:
        if event.role == "server" and self._server is None:
            port = int(os.environ["HOSTILE_HOOKS_PORT"])
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def note_thread(self) -> None:
        self.inline += not threading.current_thread().name.startswith("omni-metrics-")

    def register(self, fault: str) -> str:
        self.inline = 0
        if fault == "good":
            self.good = Good()
            return plugins.register(self.good, "good")
        if fault == "stalls":
            self.stalls = Stalls()
            return plugins.register(self.stalls, "stalls")
        self.released.clear()
        return plugins.register(hostile(fault), fault)

    def unregister(self, name: str) -> None:
        plugins.unregister(name)

    def release(self) -> None:
        self.released.set()

    def flush(self) -> bool:
        return plugins.flush(60.0)

    def report(self) -> dict[str, Any]:
        return {
            "accounts": [account._asdict() for account in plugins.stats()],
            "heard": self.good.heard if self.good else {},
            "frames": self.good.frames if self.good else 0,
            "inline": self.inline,
            "stalls": self.stalls.heard if self.stalls else [],
        }


def _handler(control: Control) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = urlparse(self.path)
            result = getattr(control, asked.path.strip("/"))(**dict(parse_qsl(asked.query)))
            body = json.dumps(result).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    return Handler


class Misspelt:
    """Not registered: there is no such hook."""

    @hookimpl
    def omni_request_finish(self, event: Event) -> None: ...


control = Control()
misspelt = Misspelt()
