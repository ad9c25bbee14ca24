"""The samples of what listeners heard, by the replica that made the audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica, exemplar_of
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, StreamFinished, hookimpl
from vllm_omni_metrics_plugin.media.playback import ENDINGS, Ending

_STREAMS = "audio_streams_total"
_OF_PLAYERS = (
    "audio_stalls_total",
    "audio_stall_seconds_total",
    "audio_played_seconds_total",
    "audio_longest_stall_seconds",
)
_AUDIBLE = "audio_first_audible_seconds"
_SILENCE = "audio_leading_silence_seconds"
_ALL = (_STREAMS, "audio_underrun_seconds", *_OF_PLAYERS, _AUDIBLE, _SILENCE)


class PlayerChildren:
    """The label children of one player's families."""

    __slots__ = ("longest", "played", "seconds", "stalls")

    def __init__(self, families: Families, labels: Labels, buffer_seconds: float) -> None:
        player = (*labels, f"{buffer_seconds:g}")
        self.stalls = families["audio_stalls_total"].labels(*player)
        self.seconds = families["audio_stall_seconds_total"].labels(*player)
        self.played = families["audio_played_seconds_total"].labels(*player)
        self.longest = families["audio_longest_stall_seconds"].labels(*player)


class ListenerChildren:
    """The label children of one stage replica."""

    __slots__ = ("_families", "_labels", "audible", "players", "silence", "streams", "underrun")

    def __init__(self, families: Families, labels: Labels) -> None:
        self._families = families
        self._labels = labels
        self.streams: dict[Ending, Any] = {
            e: families[_STREAMS].labels(*labels, e) for e in ENDINGS
        }
        self.underrun = families["audio_underrun_seconds"].labels(*labels)
        self.audible = families[_AUDIBLE].labels(*labels)
        self.silence = families[_SILENCE].labels(*labels)
        #: By the seconds of the player's buffer.
        self.players: dict[float, PlayerChildren] = {}

    def player(self, buffer_seconds: float) -> PlayerChildren:
        known = self.players.get(buffer_seconds)
        if known is None:
            known = self.players[buffer_seconds] = PlayerChildren(
                self._families, self._labels, buffer_seconds
            )
        return known


class ListenerSamples:
    def __init__(self, families: Families, players: Sequence[float]) -> None:
        """``players`` by the seconds of their buffers."""
        self._families = families
        self._players = players
        self._replicas = PerReplica(ListenerChildren, families)

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series stand at 0 of a replica that makes audio."""
        if "audio" in event.makes:
            self._replicas.expect(event)
            children = self._replicas[event.model_name, event.stage, event.replica]
            for buffer_seconds in self._players:
                children.player(buffer_seconds)
            self._families.expect_missing(*_ALL)

    @hookimpl
    def omni_stream_finished(self, event: StreamFinished) -> None:
        if event.replica is None or event.ending is None:
            reason = "unknown_replica" if event.replica is None else "no_sample_rate"
            self._families.missing(reason, *_ALL)
            return
        children = self._replicas[event.model_name, event.stage, event.replica]
        children.streams[event.ending].inc()
        if event.underrun_seconds is not None:
            children.underrun.observe(event.underrun_seconds, exemplar_of(event))
        for playing in event.players:
            player = children.player(playing.buffer_seconds)
            player.stalls.inc(playing.stalls)
            player.seconds.inc(playing.stall_seconds)
            player.played.inc(playing.played_seconds)
            player.longest.observe(playing.longest_stall_seconds)
        if event.leading_silence_seconds is not None:
            children.silence.observe(event.leading_silence_seconds)
        elif event.unheard is not None:
            self._families.missing(event.unheard, _SILENCE)
        if event.first_audible_seconds is not None:
            children.audible.observe(event.first_audible_seconds)
        elif event.unheard is not None:
            self._families.missing(event.unheard, _AUDIBLE)
