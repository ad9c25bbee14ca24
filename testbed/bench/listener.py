"""What following a listener costs, by packet."""

from __future__ import annotations

import statistics
import time
from itertools import count
from typing import Any

from testbed.bench import Figure, SideBySide
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.requests.background import Background
from vllm_omni_metrics_plugin.requests.stream import Stream

#: Hz, and samples of a packet: 80 ms.
_RATE = 24_000
_SAMPLES = 1920
#: Of 10 s.
_PACKETS = 125
_STREAMS = 40


def figures(side_by_side: SideBySide) -> list[Figure]:
    """(name, value, budget, how it was measured)."""
    background = Background()
    stream = Stream(PLAYERS, background)
    stream.first_sound.is_settled = True
    ticks = count()

    def heard() -> None:
        # Every other packet is late, and ends a stall.
        tick = next(ticks)
        stream.packet(0.08 * tick + 0.06 * (tick % 2), _SAMPLES, _RATE)

    def bare() -> None:
        tick = next(ticks)
        (0.08 * tick + 0.06 * (tick % 2), _SAMPLES, _RATE)

    one, other = side_by_side(heard, bare, 20_000)
    copied, mean = _from_the_beginning(background)
    background.close()
    return [
        ("packet_heard_us", 1e6 * (one - other), "< 1.5", "two players, every other one late"),
        ("packet_copied_us", 1e6 * copied, "< 50", "one of the first, 80 ms; for its first sound"),
        ("packet_of_stream_us", 1e6 * mean, "< 1.5", "mean of 10 s that begin with a sound"),
    ]


def _from_the_beginning(background: Background) -> tuple[float, float]:
    """Seconds for a packet that is copied, and for one of a whole stream; medians of streams."""
    import numpy as np

    tone = (0.3 * np.sin(np.arange(_SAMPLES) / 17)).astype(np.float32)
    payloads: list[dict[str, Any]] = [{"audio": tone, "sr": _RATE}]
    copied: list[float] = []
    means: list[float] = []
    for _ in range(_STREAMS):
        stream = Stream(PLAYERS, background)
        whole = 0.0
        for tick in range(_PACKETS):
            is_copied = not stream.first_sound.is_settled
            began = time.perf_counter()
            stream.packet(0.08 * tick, _SAMPLES, _RATE, payloads)
            seconds = time.perf_counter() - began
            whole += seconds
            if is_copied:
                copied.append(seconds)
                time.sleep(0.002)  # the next one comes when this one was looked at
        means.append(whole / _PACKETS)
    return statistics.median(copied), statistics.median(means)
