"""What the plugin costs a server, beside what two servers of one kind differ by.

Five servers run: two with the plugin, two without, and one without that keeps the engine's own
statistics. In each round every one is asked once, in random order and by itself, so that one server
is busy at a time. Wall-clock figures are medians over the rounds. Processor time is all that the
processes of a server use during its turns, by request; other work on the machine disturbs it less.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from testbed.bench import Figure
from testbed.server import Server

ROUNDS = 40
_WARM_UPS = 3
#: What a server does once its client has the answer is its work for it as well.
_AFTERWARDS_SECONDS = 0.1

#: One request, and its wall-clock seconds by the names of the figures.
Ask = Callable[[str], Mapping[str, float]]


class Kind(NamedTuple):
    servers: int
    env: Mapping[str, str] = {}
    args: Sequence[str] = ()


KINDS = {
    "on": Kind(2, env={"VLLM_OMNI_METRICS": "1"}),
    "off": Kind(2),
    "native": Kind(1, args=("--log-stats",)),
}


class _Asked(NamedTuple):
    kind: str
    #: Among those of its kind, from 1.
    number: int
    server: Server
    #: Seconds of each round, by the name of the figure.
    measured: dict[str, list[float]]


def figures(pipeline: str, ask: Ask, cpu: str, rounds: int = ROUNDS) -> list[Figure]:
    """Those that ``ask`` names, and ``cpu``."""
    measured = measure(pipeline, KINDS, ask, cpu, rounds)
    how = f"{rounds} rounds, five servers asked one by one in random order"
    return [figure for name in measured for figure in compared(name, measured[name], how)]


def measure(
    pipeline: str, kinds: Mapping[str, Kind], ask: Ask, cpu: str, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """What each server of each kind needs, in seconds, by the name of the figure and the kind."""
    with ExitStack() as running:
        asked: list[_Asked] = []
        starts = [(kind, n) for kind in kinds for n in range(1, kinds[kind].servers + 1)]
        for kind, number in random.sample(starts, len(starts)):  # who is first may be so for good
            print(f"starting a server of {pipeline}, {kind} {number}", flush=True)
            server = Server(pipeline, env=kinds[kind].env, args=kinds[kind].args)
            asked.append(_Asked(kind, number, running.enter_context(server), {}))
        for one in asked * _WARM_UPS:
            ask(one.server.url)
        for number in range(1, rounds + 1):
            for one in random.sample(asked, len(asked)):
                seconds = _turn(one.server, ask, cpu)
                for name, value in seconds.items():
                    one.measured.setdefault(name, []).append(value)
                shown = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
                print(f"  round {number}, {one.kind} {one.number}: {shown}", flush=True)
    found: dict[str, dict[str, list[float]]] = {}
    for name in asked[0].measured:
        # Ticks of a hundredth of a second add up right, and have no median worth having.
        middle = statistics.mean if name == cpu else statistics.median
        by_kind = found[name] = {}
        for one in asked:
            by_kind.setdefault(one.kind, []).append(middle(one.measured[name]))
    return found


def compared(name: str, by_kind: Mapping[str, Sequence[float]], how: str) -> list[Figure]:
    """The ratios of what each server of each kind needs: between kinds, and within one."""
    off, on = by_kind["off"], by_kind["on"]
    within = {kind: values[0] / values[1] for kind, values in (("off", off), ("on", on))}
    spread = max(abs(ratio - 1) for ratio in within.values())
    without = statistics.mean(off)
    unit = f"{1000 * without:.4g} ms without"
    return [
        (f"{name}_on_vs_off", statistics.mean(on) / without, f"1 ± {spread:.3f}", f"{how}; {unit}"),
        (f"{name}_off_vs_off", within["off"], "-", "two servers without the plugin: chance"),
        (f"{name}_on_vs_on", within["on"], "-", "two servers with the plugin: chance"),
        (
            f"{name}_native_vs_off",
            statistics.mean(by_kind["native"]) / without,
            "-",
            "the engine's own statistics, without the plugin",
        ),
    ]


def _turn(server: Server, ask: Ask, cpu: str) -> dict[str, float]:
    before = server.cpu_seconds()
    seconds = dict(ask(server.url))
    time.sleep(_AFTERWARDS_SECONDS)
    return {**seconds, cpu: server.cpu_seconds() - before}
