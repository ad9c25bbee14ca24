"""When the first sound is to be heard in a stream of audio, which often begins with silence.

A window of 10 ms moves by 1 ms. It is loud when the RMS of a channel, without its mean, is over
-40 dBFS; the onset is the start of the first of 50 loud windows in a row, so that neither a click
nor a DC offset is taken for a sound. Only the first 3 s are looked at.

numpy is there with the engine; this package does without it, so it is imported where it is needed.
"""

from __future__ import annotations

from typing import Any

#: Seconds from the start of the audio; what is later is not looked at.
LOOKED_AT_SECONDS = 3
_BLOCKS_PER_SECOND = 1000
#: Hz, so that no block is empty.
LOWEST_RATE = _BLOCKS_PER_SECOND
_WINDOW = 10
_HELD = 50
#: -40 dBFS, as a power.
_LOUD = 1e-4


class Onset:
    """Finds the onset of one stream, packet by packet.

    It keeps less than 1 ms of sound, and sums of the last 9 ms.
    """

    __slots__ = ("_blocks", "_rate", "_row", "_sums", "_tail", "is_decided", "seconds")

    def __init__(self, sample_rate: int) -> None:
        """``sample_rate`` in Hz; raises ValueError for one under :data:`LOWEST_RATE`."""
        if sample_rate < LOWEST_RATE:
            raise ValueError(f"no onset is found in audio of {sample_rate} Hz")
        self._rate = sample_rate
        #: Seconds of silence before the first sound; None while, or if, there is none.
        self.seconds: float | None = None
        #: Whether more audio changes nothing.
        self.is_decided = False
        #: Blocks of 1 ms that were looked at.
        self._blocks = 0
        #: Loud windows in a row.
        self._row = 0
        self._tail: Any = None
        self._sums: Any = None

    def add(self, audio: Any) -> None:
        """Take the next packet in: an array ``(channels, samples)`` of floats, full scale 1."""
        import numpy as np

        if self.is_decided:
            return
        offset = self._start_of(self._blocks)
        most = LOOKED_AT_SECONDS * self._rate - offset
        sound = audio if self._tail is None else np.concatenate((self._tail, audio), axis=1)
        sound = sound[:, :most]
        until = ((offset + sound.shape[1] + 1) * _BLOCKS_PER_SECOND - 1) // self._rate
        starts: Any = np.arange(self._blocks, until + 1) * self._rate // _BLOCKS_PER_SECOND - offset
        # A copy, as a view would keep the whole packet.
        self._tail = sound[:, starts[-1] :].copy()
        if len(starts) > 1:
            self._look_at(sound[:, : starts[-1]].astype(np.float64), starts)
        if self._blocks >= LOOKED_AT_SECONDS * _BLOCKS_PER_SECOND:
            self.is_decided = True
        if self.is_decided:
            self._tail = self._sums = None

    def _look_at(self, sound: Any, starts: Any) -> None:
        import numpy as np

        sums = np.stack(
            (
                np.add.reduceat(sound, starts[:-1], axis=1),
                np.add.reduceat(sound * sound, starts[:-1], axis=1),
                np.broadcast_to(np.diff(starts), (len(sound), len(starts) - 1)),
            )
        )
        if self._sums is not None:
            sums = np.concatenate((self._sums, sums), axis=2)
        self._blocks += len(starts) - 1
        self._sums = sums[:, :, -(_WINDOW - 1) :].copy()
        if sums.shape[2] < _WINDOW:
            return
        first_window = self._blocks - sums.shape[2]
        total, squares, samples = np.lib.stride_tricks.sliding_window_view(
            sums, _WINDOW, axis=2
        ).sum(axis=3)
        power = (squares - total * total / samples) / samples
        for number, is_loud in enumerate((power.max(axis=0) > _LOUD).tolist()):
            self._row = self._row + 1 if is_loud else 0
            if self._row == _HELD:
                window = first_window + number - (_HELD - 1)
                self.seconds = window / _BLOCKS_PER_SECOND
                self.is_decided = True
                return

    def _start_of(self, block: int) -> int:
        return block * self._rate // _BLOCKS_PER_SECOND
