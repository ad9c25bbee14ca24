"""Whether a router does better by what is left than by how many are open.

Two replicas that execute one request at a time, in a simulation without a clock: each publishes its
own backlog as a server does, and each image costs what one of its size and steps did on the image
server of the test bed (``image_costs.json``). Nothing but the router's rule differs.
"""

from __future__ import annotations

import functools
import json
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vllm_omni_metrics_plugin.exporters.prometheus.remaining import Remaining
from vllm_omni_metrics_plugin.hooks import Demand

COSTS = Path(__file__).parent / "image_costs.json"
_REQUESTS = 3_000
#: Of what the replicas could do at most.
_LOAD = 0.8

Figure = tuple[str, float, str, str]


class Cost(NamedTuple):
    """What one image was."""

    pixels: int
    steps: int
    #: Seconds in which the server executed it.
    seconds: float


class Replica:
    """Does one request after the other, and says what is left as a server's page does."""

    def __init__(self) -> None:
        self.backlog = Remaining()
        self._at = ("drawn", 0, 0)
        self.backlog.joined(self._at, "diffusion")
        #: Of those that wait, and before them of the one that it executes: number, arrival, cost.
        self._queue: deque[tuple[int, float, Cost]] = deque()
        self._ends_at = 0.0
        self.latencies: list[float] = []

    def __len__(self) -> int:
        return len(self._queue)

    def left(self, now: float) -> float:
        """Seconds; a replica that has finished nothing yet says nothing, and is asked to try."""
        return self.backlog.read(now).models.get("drawn", 0.0)

    def take(self, number: int, now: float, cost: Cost) -> None:
        name = str(number)
        self.backlog.arrived(name, "drawn")
        self.backlog.submitted(name, self._at, (Demand(pixels=cost.pixels, steps=cost.steps),))
        self._queue.append((number, now, cost))
        if len(self._queue) == 1:
            self._start(now)

    def work_until(self, now: float) -> None:
        while self._queue and self._ends_at <= now:
            number, arrived_at, _ = self._queue.popleft()
            self.backlog.ended(str(number), self._at, self._ends_at, is_known=True)
            self.backlog.finished(str(number), self._at, None, cut=False)
            self.backlog.closed(str(number))
            self.latencies.append(self._ends_at - arrived_at)
            if self._queue:
                self._start(self._ends_at)

    def _start(self, at: float) -> None:
        number, _, cost = self._queue[0]
        self.backlog.started(str(number), self._at, at)
        self._ends_at = at + cost.seconds


def by_requests(replica: Replica, now: float) -> float:
    return len(replica)


def by_backlog(replica: Replica, now: float) -> float:
    return replica.left(now)


def latencies(
    rule: Callable[[Replica, float], float], costs: Sequence[Cost], seed: int = 0
) -> list[float]:
    """Seconds of each request; the same requests at the same times for each ``rule``."""
    chance = random.Random(seed)
    replicas = [Replica(), Replica()]
    between = statistics.fmean(cost.seconds for cost in costs) / len(replicas) / _LOAD
    now = 0.0
    for number in range(_REQUESTS):
        now += chance.expovariate(1 / between)
        cost = chance.choice(costs)
        # Whoever is named first must not be asked first each time.
        order = chance.sample(replicas, len(replicas))
        for replica in replicas:
            replica.work_until(now)
        min(order, key=functools.partial(_rated, rule, now)).take(number, now, cost)
    for replica in replicas:
        replica.work_until(float("inf"))
    return [seconds for replica in replicas for seconds in replica.latencies]


def recorded() -> list[Cost]:
    return [Cost(*row) for row in json.loads(COSTS.read_text())]


def figures() -> Iterator[Figure]:
    """(name, value, budget, how it was measured)."""
    costs = recorded()
    p95 = {}
    for rule in (by_requests, by_backlog):
        seconds = latencies(rule, costs)
        p95[rule] = statistics.quantiles(seconds, n=20)[-1]
        mean = statistics.fmean(seconds)
        print(f"  two replicas, {rule.__name__}: mean {mean:.3f} s, p95 {p95[rule]:.3f} s")
    ratio = p95[by_backlog] / p95[by_requests]
    how = f"p95 latency of {_REQUESTS} images on two replicas, simulated"
    yield "least_backlog_vs_least_requests", ratio, "< 1", how


def _rated(rule: Callable[[Replica, float], float], now: float, replica: Replica) -> float:
    return rule(replica, now)
