"""Which servers the dashboards are shown with: some at a time, as few fit into a small machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from testbed.kit import traffic
from testbed.server import Server

_OBJECTIVES = """
[[objective]]
name = "prompt and smooth"
target = 0.9
[objective.limits]
audio_ttfp_seconds = 0.5
audio_longest_stall_seconds = 0.1

[[objective]]
name = "done in three seconds"
target = 0.95
limits = { e2e_request_latency_seconds = 3.0 }
"""
#: A hook plugin that prints something for each packet.
_HOOKS = Path(__file__).parents[2] / "docs" / "examples" / "omni_media_packet.py"


class Served(NamedTuple):
    server: Server
    asks: Sequence[traffic.Ask]
    clients: int


class Round(NamedTuple):
    name: str
    #: Names of the dashboards that are about it.
    boards: tuple[str, ...]
    #: Makes its servers, given a folder for their files.
    servers: Callable[[Path], Sequence[Served]]


def serve(served: Sequence[Served], start: Callable[[Server], None], running: ExitStack) -> None:
    """Start the servers, one after the other, and leave them to ``running`` to stop.

    Raises :class:`testbed.server.ServerFailedError`.
    """
    for server, asks, _ in served:
        running.callback(server.stop)
        start(server)
        for _, ask in asks[:2]:
            ask()  # a replica's first request pays for things that no later one does


def drive(served: Sequence[Served], seconds: float) -> None:
    """Traffic for all of them at once; says what became of it."""

    def one(these: Served) -> None:
        told = traffic.drive(these.asks, seconds, these.clients)
        for what, count in sorted(told.items()):
            print(f"  {these.server.pipeline.name}: {count} {what}", flush=True)

    threads = [Thread(target=one, args=(these,), daemon=True) for these in served]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _environment(folder: Path) -> dict[str, str]:
    objectives = folder / "slo.toml"
    objectives.write_text(_OBJECTIVES)
    return {
        "VLLM_OMNI_METRICS": "1",
        "VLLM_OMNI_METRICS_SLO": str(objectives),
        "VLLM_OMNI_METRICS_HOOKS": str(_HOOKS),
    }


def _speech(folder: Path) -> Sequence[Served]:
    pauses = folder / "pauses"
    env = {**_environment(folder), "VLLM_OMNI_CPU_PAUSES": str(pauses)}
    server = Server("tts", replicas=2, env=env)
    return [Served(server, traffic.speech(server.url, pauses), 8)]


def _pictures(folder: Path) -> Sequence[Served]:
    env = _environment(folder)
    profiled = ("--enable-diffusion-pipeline-profiler",)
    images = Server("image", env=env, args=profiled)
    videos = Server("video", env=env)
    return [
        Served(images, traffic.images(images.url), 3),
        Served(videos, traffic.videos(videos.url), 2),
    ]


def _sessions(folder: Path) -> Sequence[Served]:
    server = Server("duplex", env=_environment(folder))
    return [Served(server, traffic.sessions(server.url), 3)]


ROUNDS = (
    Round("speech", ("overview", "speech", "stages"), _speech),
    Round("pictures", ("images-and-video",), _pictures),
    Round("sessions", ("realtime",), _sessions),
)
