"""A player that lives through a stream tick by tick: slow, and none of the plugin's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: Seconds; a power of two, so that sums of ticks are exact in floats.
TICK = 1 / 64

Over = Literal["end", "leave", "fail"]


@dataclass
class Heard:
    """In ticks."""

    started: int | None = None
    #: When each stall began, its length, and how much had been played.
    stalls: list[tuple[int, int, int]] = field(default_factory=list)
    played: int = 0
    silent_when_over: bool = False


def hear(packets: list[tuple[int, int]], buffer: int, over_at: int, over: Over) -> Heard:
    """``packets`` are pairs of arrival and length; ``over_at`` is not before the last arrival."""
    heard = Heard()
    received = 0
    playing = False
    waits_since = 0
    coming = sorted(packets, key=lambda packet: packet[0])
    now = 0
    while True:
        while coming and coming[0][0] <= now:
            received += coming.pop(0)[1]
        left = received - heard.played
        is_over = now >= over_at
        # All that arrived was played when the clock shows this tick: silence begins, or began.
        if playing and left == 0 and not (is_over and over == "end"):
            playing = False
            waits_since = now
        may_start = left > 0 and (left >= buffer or (is_over and over != "leave"))
        if not playing and may_start:
            if heard.started is None:
                heard.started = now
            elif now > waits_since:
                heard.stalls.append((waits_since, now - waits_since, heard.played))
            playing = True
        if is_over:
            break
        if playing:
            heard.played += 1
        now += 1
    if over != "end" and not playing and heard.started is not None and now > waits_since:
        heard.stalls.append((waits_since, now - waits_since, heard.played))
        heard.silent_when_over = True
    if over != "leave":
        heard.played = received
    return heard
