"""One response with streamed audio, as its listener hears it."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_omni_metrics_plugin.hooks import Playing, StreamFinished
from vllm_omni_metrics_plugin.media.playback import Playback, Player


class Stream:
    """From the moment when a stage that makes audio is given the request; keeps no packet."""

    __slots__ = ("lacks_rate", "playback")

    def __init__(self, buffers: Sequence[float]) -> None:
        """``buffers`` of its players, in seconds."""
        self.playback = Playback(buffers)
        #: There was audio whose length is not known.
        self.lacks_rate = False

    def packet(self, at: float, samples: int, sample_rate: int | None) -> None:
        """Audio is handed over; ``samples`` per channel, ``sample_rate`` in Hz."""
        if sample_rate is None:
            self.lacks_rate = True
        else:
            self.playback.packet(at, samples / sample_rate)

    def over(
        self,
        outcome: str,
        at: float,
        request_id: str,
        model_name: str,
        stage: int,
        replica: int | None,
        requests: int = 1,
    ) -> StreamFinished:
        """The event of its end; ``outcome`` is the request's, or that of ``requests`` together."""
        playback = self.playback
        if outcome == "abort":
            ending = playback.leave(at)
        elif outcome in ("error", "rejected"):
            ending = playback.fail(at)
        else:
            ending = playback.end(at)
        measured = not self.lacks_rate
        heard = measured and playback.first_at is not None
        return StreamFinished(
            request_id=request_id,
            model_name=model_name,
            stage=stage,
            replica=replica,
            ending=ending if measured else None,
            underrun_seconds=playback.underrun_seconds if heard else None,
            players=tuple(map(_playing, playback.players)) if heard else (),
            requests=requests,
        )


def _playing(player: Player) -> Playing:
    return Playing(
        buffer_seconds=player.buffer_seconds,
        stalls=player.stalls,
        stall_seconds=player.stall_seconds,
        longest_stall_seconds=player.longest_stall_seconds,
        first_stall_at_seconds=player.first_stall_at_seconds,
        played_seconds=player.played_seconds,
    )
