"""``python -m testbed.bench.image_costs``: records what images cost, for the simulated router."""

from __future__ import annotations

import itertools
import json
import random
import time

from testbed.bench.routing import COSTS, Cost
from testbed.clients import visual
from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import scrape

_SIZES = ("64x64", "128x128", "256x256", "512x256")
_STEPS = (2, 8, 20)
_EACH = 5


def record(url: str) -> list[Cost]:
    """Ask for each size with each number of steps, one by one and in any order."""
    mix = list(itertools.product(_SIZES, _STEPS)) * _EACH
    random.Random(0).shuffle(mix)
    costs = []
    for size, steps in mix:
        before = _executed(url, 0)
        visual.images(url, size=size, steps=steps)
        count, seconds = _executed(url, before[0] + 1)
        width, height = map(int, size.split("x"))
        costs.append(Cost(width * height, steps, round(seconds - before[1], 4)))
        assert count == before[0] + 1, "somebody else asks this server, too"
    return costs


def _executed(url: str, at_least: float) -> tuple[float, float]:
    """How many requests the server has executed, and the seconds of all of them."""
    while True:
        page = scrape(url)
        count = page.sum("vllm:omni_stage_execute_time_seconds_count")
        if count >= at_least:
            return count, page.sum("vllm:omni_stage_execute_time_seconds_sum")
        time.sleep(0.01)


if __name__ == "__main__":
    with Server("image", env={"VLLM_OMNI_METRICS": "1"}) as server:
        for _ in range(3):
            visual.images(server.url)
        lines = ",\n".join(json.dumps(cost) for cost in record(server.url))
    COSTS.write_text(f"[\n{lines}\n]\n")
