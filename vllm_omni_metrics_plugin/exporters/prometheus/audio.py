"""The samples of audio, by the replica that made it."""

from __future__ import annotations

from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica, exemplar_of
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import AudioFinished, MediaPacket, ReplicaJoined, hookimpl

_AUDIO = ("audio_ttfp_seconds", "audio_duration_seconds", "audio_rtf", "audio_frames_total")


class AudioChildren:
    """The label children of one stage replica's audio families."""

    __slots__ = ("duration", "frames", "rtf", "ttfp")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.ttfp = families["audio_ttfp_seconds"].labels(*labels)
        self.duration = families["audio_duration_seconds"].labels(*labels)
        self.rtf = families["audio_rtf"].labels(*labels)
        self.frames = families["audio_frames_total"].labels(*labels)


class AudioSamples:
    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._replicas = PerReplica(AudioChildren, families)

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series stand at 0 of a replica that makes audio."""
        if "audio" in event.makes:
            self._replicas.expect(event)
            self._families.expect_missing(*_AUDIO)
            for hook in ("omni_media_packet", "omni_audio_finished"):
                self._families.expect("metrics_events_total", hook)

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.replica is None:
            self._missing("unknown_replica", "audio_frames_total")
            if event.index == 0 and event.streamed:
                self._missing("unknown_replica", "audio_ttfp_seconds")
            return
        children = self._replicas[event.model_name, event.stage, event.replica]
        children.frames.inc(event.samples)
        if event.index == 0 and event.streamed:
            if event.since_arrival_seconds is None:
                self._missing(_why_no_ttfp(event), "audio_ttfp_seconds")
            else:
                children.ttfp.observe(event.since_arrival_seconds, exemplar_of(event))

    @hookimpl
    def omni_audio_finished(self, event: AudioFinished) -> None:
        if event.samples == 0 and event.streamed:
            self._missing("empty_audio", "audio_ttfp_seconds")
        if event.duration_seconds is None or event.replica is None:
            self._missing(_why_no_duration(event), "audio_duration_seconds", "audio_rtf")
            return
        children = self._replicas[event.model_name, event.stage, event.replica]
        children.duration.observe(event.duration_seconds)
        rtf = event.rtf
        if rtf is None:
            self._missing(_why_no_rtf(event), "audio_rtf")
        else:
            children.rtf.observe(rtf)


def _why_no_duration(event: AudioFinished) -> str:
    if event.samples == 0:
        return "empty_audio"
    return "no_sample_rate" if event.sample_rate is None else "unknown_replica"


def _why_no_ttfp(event: MediaPacket) -> str:
    return "during_input" if event.during_input else "unknown_arrival"


def _why_no_rtf(event: AudioFinished) -> str:
    return "during_input" if event.during_input else "no_generation_time"
