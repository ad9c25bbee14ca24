"""What following a listener costs, by packet."""

from __future__ import annotations

from itertools import count

from testbed.bench import Figure, SideBySide
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.requests.stream import Stream


def figures(side_by_side: SideBySide) -> list[Figure]:
    stream = Stream(PLAYERS)
    ticks = count()

    def heard() -> None:
        # Every other packet is late, and ends a stall.
        tick = next(ticks)
        stream.packet(0.08 * tick + 0.06 * (tick % 2), 1920, 24_000)

    def bare() -> None:
        tick = next(ticks)
        (0.08 * tick + 0.06 * (tick % 2), 1920, 24_000)

    one, other = side_by_side(heard, bare, 20_000)
    return [("packet_heard_us", 1e6 * (one - other), "< 1.5", "two players, every other one late")]
