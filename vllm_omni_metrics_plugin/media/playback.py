"""What somebody hears who plays a stream of audio while it arrives: arithmetic, no sound.

Packet i arrives at ``a_i`` and holds ``d_i`` seconds; ``S_i`` is what arrived before it.

The **underrun** of a stream is the largest ``(a_i - a_0) - S_i``, at least 0: the delay of the
start that makes play gapless, and all the silence of a player that starts at the first packet.

A **player with a buffer** starts, and resumes, when it holds that many seconds or the stream is
over. It runs dry when the present run has played all that arrived; a packet later than that ends a
stall as soon as the buffer is full again. The start is never a stall, nor is the end.

Times are monotonic seconds. A stream keeps a few floats for itself and for each of its players,
however many packets it has, and two for each run of play that begins in its first seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

#: Seconds; a shorter silence is the noise of clocks and nobody hears it.
SHORTEST_STALL = 0.001
#: Seconds; sums of floats may miss a full buffer by so much.
_ROUNDING = 1e-9
#: Seconds of a stream of which its players remember when they played them, and in how many runs;
#: packets of 20 ms that are late each and all would make 150.
REMEMBERED_SECONDS = 3.0
_MOST_RUNS = 256

Ending = Literal["smooth", "stalled", "left_before_audio", "left_playing", "left_stalled", "error"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
#: Seconds that the players buffer, unless the operator says otherwise.
PLAYERS = (0.0, 0.2)


class Player:
    """One player of one stream, with a buffer of its own."""

    __slots__ = (
        "_run_content",
        "_run_start",
        "_runs",
        "_waits_since",
        "buffer_seconds",
        "first_stall_at_seconds",
        "longest_stall_seconds",
        "played_seconds",
        "stall_seconds",
        "stalls",
        "started_at",
    )

    def __init__(self, buffer_seconds: float) -> None:
        """``buffer_seconds`` of audio make it start and resume; 0 is at once."""
        self.buffer_seconds = buffer_seconds
        #: When it began to play; None until then.
        self.started_at: float | None = None
        self.stalls = 0
        self.stall_seconds = 0.0
        self.longest_stall_seconds = 0.0
        #: Seconds of audio played before the first stall; None without one.
        self.first_stall_at_seconds: float | None = None
        #: Seconds of audio that were played; set when the stream is over.
        self.played_seconds = 0.0
        #: When the present run of play began; None while it waits.
        self._run_start: float | None = None
        #: Seconds of the stream that earlier runs played.
        self._run_content = 0.0
        self._waits_since = 0.0
        #: Of the first seconds: how much had been played when each run began, and when that was.
        self._runs: list[tuple[float, float]] = []

    def packet(self, at: float, before: float, content: float) -> None:
        """A packet arrives; there are ``content`` seconds now and were ``before``."""
        run_start = self._run_start
        if run_start is not None:
            dry = run_start + (before - self._run_content)
            if at <= dry:
                return
            self._waits_since = dry
            self._run_start = None
            self._run_content = before
        if content - self._run_content >= self.buffer_seconds - _ROUNDING:
            self._resume(at)

    def end(self, at: float, content: float) -> None:
        """The stream of ``content`` seconds is complete: what is left is played."""
        if self._run_start is None and content > self._run_content:
            self._resume(at)
        self.played_seconds = content

    def fail(self, at: float, content: float) -> None:
        """The stream breaks off: a silence that lasts until then counts, what is left is played."""
        if self._is_dry(at, content):
            self._resume(at)
        self.end(at, content)

    def leave(self, at: float, content: float) -> bool:
        """The listener leaves; whether it was in a silence, which counts."""
        if self._is_dry(at, content):
            self.played_seconds = self._run_content
            return self._stall(at)
        if self._run_start is not None:
            self.played_seconds = self._run_content + (at - self._run_start)
        return False

    def dry(self, content: float) -> tuple[float, float] | None:
        """When it runs dry, or did, if nothing more arrives, and how much it has played by then.

        None while it has not started.
        """
        if self._run_start is not None:
            return self._run_start + (content - self._run_content), content
        return None if self.started_at is None else (self._waits_since, self._run_content)

    def played_at(self, seconds: float) -> float | None:
        """When it came to this place of the stream, if it goes on; None if it never started.

        Right for the first :data:`REMEMBERED_SECONDS`.
        """
        at = None
        for content, run_start in self._runs:
            if content > seconds:
                break
            at = run_start + (seconds - content)
        return at

    def _is_dry(self, at: float, content: float) -> bool:
        """Whether it started and plays nothing; it waits then."""
        if self._run_start is not None:
            dry = self._run_start + (content - self._run_content)
            if at <= dry:
                return False
            self._waits_since = dry
            self._run_start = None
            self._run_content = content
        return self.started_at is not None

    def _resume(self, at: float) -> None:
        if self.started_at is None:
            self.started_at = at
        else:
            self._stall(at)
        self._run_start = at
        if self._run_content <= REMEMBERED_SECONDS and len(self._runs) < _MOST_RUNS:
            self._runs.append((self._run_content, at))

    def _stall(self, until: float) -> bool:
        seconds = until - self._waits_since
        if seconds < SHORTEST_STALL:
            return False
        self.stalls += 1
        self.stall_seconds += seconds
        if seconds > self.longest_stall_seconds:
            self.longest_stall_seconds = seconds
        if self.first_stall_at_seconds is None:
            self.first_stall_at_seconds = self._run_content
        return True


class Playback:
    """One stream, as each of its players plays it.

    ::

        playback = Playback((0.0, 0.2))
        playback.packet(time.monotonic(), samples / sample_rate)
        ending = playback.end(time.monotonic())

    The first player decides the ending.
    """

    __slots__ = ("content_seconds", "ending", "first_at", "players", "underrun_seconds")

    def __init__(self, buffers: Sequence[float]) -> None:
        """``buffers`` in seconds, one for each player; at least one."""
        self.players = tuple(map(Player, buffers))
        #: When the first packet arrived; None until then.
        self.first_at: float | None = None
        self.content_seconds = 0.0
        self.underrun_seconds = 0.0
        #: None while the stream goes on.
        self.ending: Ending | None = None

    def packet(self, at: float, seconds: float) -> None:
        """A packet with so much audio arrives. Nothing comes after the end."""
        if self.ending is not None:
            return
        before = self.content_seconds
        first_at = self.first_at
        if first_at is None:
            self.first_at = at
        elif at - first_at - before > self.underrun_seconds:
            self.underrun_seconds = at - first_at - before
        self.content_seconds = content = before + seconds
        for player in self.players:
            player.packet(at, before, content)

    def end(self, at: float) -> Ending:
        """The response is complete. Of several ends the first counts; without audio, an error."""
        if self.ending is None:
            if self.first_at is None:
                self.ending = "error"
            else:
                for player in self.players:
                    player.end(at, self.content_seconds)
                self.ending = "stalled" if self.players[0].stalls else "smooth"
        return self.ending

    def fail(self, at: float) -> Ending:
        """The server broke the response off."""
        if self.ending is None:
            for player in self.players:
                player.fail(at, self.content_seconds)
            self.ending = "error"
        return self.ending

    def leave(self, at: float) -> Ending:
        """The client left before the response was complete."""
        if self.ending is None:
            in_silence = [player.leave(at, self.content_seconds) for player in self.players]
            if self.players[0].started_at is None:
                self.ending = "left_before_audio"
            else:
                self.ending = "left_stalled" if in_silence[0] else "left_playing"
        return self.ending
