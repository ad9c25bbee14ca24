"""Whether memory stays flat: many requests through the real ``AsyncOmni``, every hook listened to.

``python -m tests.engine.soak 100000`` prints the resident memory along the way, its slope, and the
length of every table that the plugin keeps. It ends with status 1 if a table has grown by requests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sized
from itertools import count
from typing import Any

import psutil
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest

from tests.engine.installed import SEAMS
from tests.engine.test_async_omni_generate import Pipeline, begin_to_speak, params, speak
from vllm_omni_metrics_plugin.channel.frames import ReceivedHalf, SentHalf
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.hooks import HookRegistry, hookimpl
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.tables import aligned
from vllm_omni_metrics_plugin.testing.events import EVENTS

AT_ONCE = 8
REPORTS = 20
#: Tables that hold so few things do not matter; the same for what grows from the first report on.
SMALL = 64
OURS = "vllm_omni_metrics_plugin."


class Counting:
    """A hook plugin that listens to everything, and keeps one number."""

    events = 0


def _count(self: Counting, event: object) -> None:
    self.events += 1


for _hook in EVENTS:
    setattr(Counting, _hook, hookimpl(_count))


class Slow:
    """One that is called on a thread of its own."""

    @hookimpl(slow=True)
    def omni_request_finished(self, event: object) -> None: ...


class Traffic:
    """An application with one streaming endpoint, and clients of every kind."""

    KINDS = ("ends", "leaves", "fails", "is refused", "dies")

    def __init__(self, omni: Any, pipeline: Pipeline, state: EngineState) -> None:
        self._omni = omni
        self._pipeline = pipeline
        self._state = state
        self._given: list[str] = []
        self._number = count()
        self.app = FastAPI()
        self.app.post("/v1/audio/speech")(self.speech)
        pipeline.script = self.script

    def script(self, pipeline: Pipeline, request_id: str) -> None:
        self._given.append(request_id)
        kind = request_id.partition("~")[0]
        shared: dict[str, Any] = {
            "from_stage": 0,
            "to_stage": 1,
            "key": f"{request_id}_0_0",
            "connector": "Soak",
            "size_bytes": 100,
            "duration_seconds": 0.1,
            "clock": "here",
        }
        now = time.monotonic()
        self._state.transfers.report(SentHalf(from_replica=0, sent_at=now, **shared))
        self._state.transfers.report(ReceivedHalf(to_replica=0, received_at=now, **shared))
        if kind == "leaves":
            begin_to_speak(pipeline, request_id)
        elif kind == "dies":
            begin_to_speak(pipeline, request_id)
            pipeline.fails(request_id=request_id, error="a stage failed")
        else:
            speak(pipeline, request_id)

    async def speech(self, kind: str) -> Any:
        outputs = self._omni.generate(
            "hello",
            request_id=f"{kind}~{next(self._number)}",
            sampling_params_list=params("DELTA"),
        )
        if kind == "is refused":
            async for _ in outputs:
                pass
            raise HTTPException(400, "no")

        async def sound() -> AsyncIterator[bytes]:
            async for _ in outputs:
                yield b"sound"
                if kind == "fails":
                    raise RuntimeError("the endpoint cannot encode this")

        return StreamingResponse(sound())

    async def ask(self, kind: str) -> None:
        sent = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not sent.is_set():
                sent.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            if kind == "leaves":
                await asyncio.sleep(0)
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None: ...

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/audio/speech",
            "raw_path": b"/v1/audio/speech",
            "query_string": f"kind={kind}".replace(" ", "%20").encode(),
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("here", 80),
            "client": ("there", 1),
            "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        try:
            await self.app(scope, receive, send)
        except Exception:
            assert kind in ("fails", "dies"), kind

    def clean_up(self) -> None:
        """What the engine's orchestrator does at each request's end."""
        for pool in self._pipeline.stage_pools:
            pool.output_processor.abort_requests(self._given, internal=False)
            pool.release_bindings(self._given)
        self._given.clear()
        self._pipeline.aborted.clear()


def tables(*roots: object) -> Iterator[tuple[str, int]]:
    """Every container of more than a few things that is reached through objects of ours."""
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [(type(root).__name__, root) for root in roots]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Sized) and not isinstance(value, (str, bytes)):
            yield path, len(value)
        if isinstance(value, dict):
            waiting += ((f"{path}[{key!r:.40}]", each) for key, each in list(value.items())[:SMALL])
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += ((f"{path}[]", each) for each in list(value)[:SMALL])
        elif type(value).__module__.startswith(OURS):
            names = [*getattr(value, "__dict__", ()), *_slots(type(value))]
            waiting += ((f"{path}.{n}", getattr(value, n)) for n in names if hasattr(value, n))


def _slots(kind: type) -> Iterator[str]:
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


async def _run(requests: int, state: EngineState, roots: tuple[object, ...]) -> bool:
    from vllm_omni.entrypoints import omni_base
    from vllm_omni.entrypoints.async_omni import AsyncOmni

    pipeline = Pipeline(speak)
    if hasattr(AsyncOmni, "_create_engine"):
        AsyncOmni._create_engine = lambda self, **_: pipeline
    else:
        omni_base.AsyncOmniEngine = lambda **_: pipeline
    with tempfile.TemporaryDirectory() as folder:
        omni = AsyncOmni(model=folder)
    traffic = Traffic(omni, pipeline, state)
    process = psutil.Process(os.getpid())
    sizes: list[dict[str, int]] = []
    memory: list[tuple[int, float]] = []
    for report in range(1, REPORTS + 1):
        share = requests // REPORTS // AT_ONCE
        for _ in range(share):
            kinds = (Traffic.KINDS * 2)[:AT_ONCE]
            await asyncio.gather(*map(traffic.ask, kinds))
            traffic.clean_up()
        gc.collect()
        memory.append((report * share * AT_ONCE, process.memory_info().rss / 2**20))
        sizes.append(dict(tables(*roots)))
        print(f"{memory[-1][0]:8} requests  {memory[-1][1]:8.1f} MB", flush=True)
    omni.shutdown()
    half = REPORTS // 2
    (first, before), (last, after) = memory[half - 1], memory[-1]
    print(
        f"slope of the second half: {(after - before) / (last - first) * 1e6:.1f} bytes a request"
    )
    grown = {
        path: length
        for path, length in sizes[-1].items()
        if length > SMALL and length > sizes[half - 1].get(path, 0)
    }
    large = {path: length for path, length in sizes[-1].items() if length > SMALL}
    rows = [[p, str(sizes[half - 1].get(p, 0)), str(n)] for p, n in sorted(large.items())]
    print(f"{len(sizes[-1])} tables; those of more than {SMALL}:")
    print(aligned(["table", "in the middle", "in the end"], rows))
    return not grown


def main(requests: int = 100_000) -> int:
    registry = HookRegistry()
    published = CollectorRegistry()
    exporter = PrometheusExporter({}, registry.stats, published)
    counting = Counting()
    registry.register(exporter, "prometheus")
    registry.register(counting, "counting")
    registry.register(Slow(), "slow")
    state = EngineState(registry.hooks)
    patches = Patches(SEAMS, state)
    patches.install()
    flat = asyncio.run(_run(requests, state, (state, registry, exporter)))
    for line in generate_latest(published).decode().splitlines():
        if line.startswith(("vllm:omni_requests_success_total", "vllm:omni_num_requests")):
            print(line)
    print(f"{counting.events} events, each to one listener of every hook")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
