"""What the plugin costs an image server: the same requests with it and without, in turns."""

from __future__ import annotations

import statistics
import time

from testbed.clients import visual
from testbed.server import Server

_PAIRS = 20
_IMAGES = 4


def figure() -> tuple[str, float, str, str]:
    """(name, value, budget, how it was measured)."""
    print("starting an image server with the plugin and one without", flush=True)
    with Server("image", env={"VLLM_OMNI_METRICS": "1"}) as on, Server("image") as off:
        for server in (on, off) * 2:
            _batch(server)
        ratios = []
        for pair in range(_PAIRS):
            seconds = {
                server.port: _batch(server) for server in ((on, off) if pair % 2 else (off, on))
            }
            ratios.append(seconds[on.port] / seconds[off.port])
            print(f"  pair {pair + 1}: {ratios[-1]:.3f}", flush=True)
    how = f"median of {_PAIRS} alternating pairs, {_IMAGES} images of 10 steps one by one"
    return "image_on_vs_off", statistics.median(ratios), "< 1.03", how


def _batch(server: Server) -> float:
    began = time.perf_counter()
    for _ in range(_IMAGES):
        visual.images(server.url, size="128x128", steps=10)
    return time.perf_counter() - began
