"""One response with streamed audio, as its listener hears it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import Playing, StreamFinished
from vllm_omni_metrics_plugin.hooks.events import Unheard
from vllm_omni_metrics_plugin.media.playback import Playback, Player
from vllm_omni_metrics_plugin.requests.background import Background
from vllm_omni_metrics_plugin.requests.first_sound import FirstSound
from vllm_omni_metrics_plugin.requests.stalls import Stalls, Watched

#: Outcomes of a request that break it off for its listener.
BROKEN = ("error", "rejected")


class Maker(NamedTuple):
    """Who made a stream, or the latest part of it."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    trace_id: str | None = None


class Waited(NamedTuple):
    """Since when the listener of a request waits, in monotonic seconds."""

    #: The arrival, or the end of a streamed input; None where it is not known.
    since: float | None
    #: Whether the input was streamed.
    during_input: bool = False


class Stream:
    """From the moment when a stage that makes audio is given the request; keeps no packet."""

    __slots__ = ("first_sound", "lacks_rate", "playback", "watched")

    def __init__(self, buffers: Sequence[float], background: Background) -> None:
        """``buffers`` of its players, in seconds; ``background`` looks for its first sound."""
        self.playback = Playback(buffers)
        self.first_sound = FirstSound(background)
        #: There was audio whose length is not known.
        self.lacks_rate = False
        #: Where somebody asks for its stalls while they last.
        self.watched: Watched | None = None

    def packet(
        self,
        at: float,
        samples: int,
        sample_rate: int | None,
        payloads: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Audio is handed over; ``samples`` per channel are new, ``sample_rate`` in Hz."""
        if not self.first_sound.is_settled:
            before = self.playback.content_seconds
            self.first_sound.packet(payloads, samples, sample_rate, before)
        if sample_rate is None:
            self.lacks_rate = True
        else:
            self.playback.packet(at, samples / sample_rate)

    def over(self, outcome: str, at: float, stalls: Stalls) -> None:
        """Nothing more is handed over; ``outcome`` is the request's, or that of several."""
        if self.watched is not None:
            if outcome in ("abort", *BROKEN):  # else the silence is the end
                self.watched.look(at)
            stalls.over(self.watched)
        if outcome == "abort":
            self.playback.leave(at)
        elif outcome in BROKEN:
            self.playback.fail(at)
        else:
            self.playback.end(at)

    def finished(self, maker: Maker, waited: Waited, requests: int = 1) -> StreamFinished:
        """The event of its end, once all that came was looked at.

        ``maker`` and ``waited`` are of the request that made it, or of the last and the first one
        of so many ``requests``.
        """
        playback = self.playback
        measured = not self.lacks_rate
        heard = measured and playback.first_at is not None
        silence = self.first_sound.seconds if heard else None
        audible, unheard = self._first_audible(silence, waited) if heard else (None, None)
        return StreamFinished(
            request_id=maker.request_id,
            model_name=maker.model_name,
            stage=maker.stage,
            replica=maker.replica,
            ending=playback.ending if measured else None,
            underrun_seconds=playback.underrun_seconds if heard else None,
            players=tuple(map(_playing, playback.players)) if heard else (),
            leading_silence_seconds=silence,
            first_audible_seconds=audible,
            unheard=unheard,
            requests=requests,
            trace_id=maker.trace_id,
        )

    def _first_audible(
        self, silence: float | None, waited: Waited
    ) -> tuple[float | None, Unheard | None]:
        """How long the listener of the first player waited for it, or why that is not known."""
        player = self.playback.players[0]
        left = self.playback.ending in ("left_before_audio", "left_playing", "left_stalled")
        if silence is None:
            return None, self.first_sound.problem or (
                "left_before_sound" if left else "no_audible_sound"
            )
        at = player.played_at(silence)
        if at is None or (left and silence >= player.played_seconds):
            return None, "left_before_sound"
        if waited.during_input and (waited.since is None or at < waited.since):
            return None, "during_input"
        if waited.since is None:
            return None, "unknown_arrival"
        return at - waited.since, None


def _playing(player: Player) -> Playing:
    return Playing(
        buffer_seconds=player.buffer_seconds,
        stalls=player.stalls,
        stall_seconds=player.stall_seconds,
        longest_stall_seconds=player.longest_stall_seconds,
        first_stall_at_seconds=player.first_stall_at_seconds,
        played_seconds=player.played_seconds,
    )


class EndedStream(NamedTuple):
    """A stream that is over, and whose it was."""

    stream: Stream
    maker: Maker
    waited: Waited
    #: Of which it was made.
    requests: int = 1


def are_looked_at(ended: Sequence[EndedStream]) -> bool:
    """All that came of them was looked at for its first sound; else the background is to come."""
    return all(one.stream.first_sound.is_looked_at for one in ended)


def tell_streams(hooks: Any, ended: Sequence[EndedStream]) -> tuple[StreamFinished, ...]:
    """Call ``omni_stream_finished`` of each, all of which was looked at; returns its events."""
    told = []
    with internal_errors.suppressed("the end of a stream"):
        hook = hooks.omni_stream_finished
        for one in ended:
            event = one.stream.finished(one.maker, one.waited, one.requests)
            told.append(event)
            if hook.listeners:
                hook(event)
    return tuple(told)
