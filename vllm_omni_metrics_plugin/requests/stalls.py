"""Players that run dry, told while the silence lasts.

The event loop on which packets come has one timer for all streams, set to the next moment when one
may be dry. Packets move that moment on without touching the timer: it looks, and is set again.
Where there is no loop, and where a packet is faster than the timer, the packet finds the silence
that it ends.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count
from weakref import WeakKeyDictionary

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.media.playback import SHORTEST_STALL, Playback

#: Takes the seconds of a player's buffer, when it ran dry, and how much it had played.
Tell = Callable[[float, float, float], None]


class Watched:
    """One stream."""

    __slots__ = ("_playback", "_tell", "_told", "due")

    def __init__(self, playback: Playback, tell: Tell) -> None:
        self._playback = playback
        #: None when the stream is over.
        self._tell: Tell | None = tell
        #: By player, when the silence began that was told last.
        self._told: list[float | None] = [None] * len(playback.players)
        #: When it is to be looked at; None while nothing can happen by itself.
        self.due: float | None = None

    def look(self, now: float) -> float | None:
        """Tell of each player that is dry; returns when the next one may be."""
        tell, soonest = self._tell, None
        if tell is None:
            return None
        content = self._playback.content_seconds
        for number, player in enumerate(self._playback.players):
            dry = player.dry(content)
            if dry is None or dry[0] == self._told[number]:
                continue
            since, played = dry
            due = since + SHORTEST_STALL
            if due <= now:
                self._told[number] = since
                tell(player.buffer_seconds, since, played)
            elif soonest is None or due < soonest:
                soonest = due
        return soonest

    def end(self) -> None:
        """Tell of nothing more."""
        self._tell = None


class _Timer:
    """Of one event loop; used in its thread alone."""

    def __init__(self) -> None:
        #: Entries whose stream is due at another moment are outdated.
        self._heap: list[tuple[float, int, Watched]] = []
        self._numbers = count()
        self._handle: asyncio.TimerHandle | None = None
        self._set_to = 0.0

    def watch(self, watched: Watched, due: float | None) -> None:
        """Look at a stream then, or earlier."""
        if due is not None and (watched.due is None or due < watched.due):
            self._push(watched, due)
            self._set()

    def forget(self, watched: Watched) -> None:
        self._heap = [entry for entry in self._heap if entry[2] is not watched]
        heapq.heapify(self._heap)
        watched.due = None
        self._set()

    def _set(self) -> None:
        soonest = self._heap[0][0] if self._heap else None
        if self._handle is not None:
            if soonest == self._set_to:
                return
            self._handle.cancel()
            self._handle = None
        if soonest is not None:
            self._set_to = soonest
            seconds = max(0.0, soonest - time.monotonic())
            self._handle = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        with internal_errors.suppressed("telling of stalls"):
            self._handle = None
            now = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                due, _, watched = heapq.heappop(self._heap)
                if watched.due == due:
                    watched.due = None
                    later = watched.look(now)
                    if later is not None:
                        self._push(watched, later)
            self._set()

    def _push(self, watched: Watched, due: float) -> None:
        watched.due = due
        heapq.heappush(self._heap, (due, next(self._numbers), watched))


class Stalls:
    """Of all streams whose stalls somebody listens for."""

    def __init__(self) -> None:
        self._timers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Timer] = WeakKeyDictionary()

    def came(self, watched: Watched, now: float) -> None:
        """A packet was taken in."""
        timer = self._timer()
        if timer is not None:
            timer.watch(watched, watched.look(now))

    def over(self, watched: Watched) -> None:
        """Nothing more comes."""
        watched.end()
        if watched.due is not None and (timer := self._timer()) is not None:
            timer.forget(watched)

    def _timer(self) -> _Timer | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        timer = self._timers.get(loop)
        if timer is None:
            timer = self._timers[loop] = _Timer()
        return timer
