"""What the listeners of a request hear: its streams of audio, by the stage that makes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from vllm_omni_metrics_plugin.hooks import PlaybackStalled
from vllm_omni_metrics_plugin.requests.stalls import Watched
from vllm_omni_metrics_plugin.requests.stream import EndedStream, Maker, Stream, Waited
from vllm_omni_metrics_plugin.requests.utterance import OpenRequests, Utterance


class OpenRequest(Protocol):
    """What is needed of one."""

    request_id: str
    model_name: str
    trace_id: str | None
    streams: dict[int, Stream]
    #: What it is a part of for its listener.
    utterance: Utterance | None

    @property
    def requests(self) -> OpenRequests:
        """All that are open."""

    @property
    def waited(self) -> Waited:
        """Since when its client waits."""

    def replica(self, stage: int) -> int | None:
        """The one that makes the audio."""


def begin(request: OpenRequest, stage: int) -> Stream | None:
    """A stage is to make audio for it; None where nobody asks what is heard."""
    requests, utterance = request.requests, request.utterance
    hooks = requests.hooks
    if not (
        hooks.omni_stream_finished.listeners
        or hooks.omni_request_finished.listeners
        or hooks.omni_playback_stalled.listeners
    ):
        return None
    if utterance is None:
        stream = Stream(requests.players, requests.background)
    else:
        stream = utterance.stream(stage)
    request.streams[stage] = stream
    return stream


def packet(
    request: OpenRequest,
    stage: int,
    now: float,
    samples: int,
    sample_rate: int | None,
    payloads: Sequence[Mapping[str, Any]],
) -> None:
    """Audio leaves, of so many new samples per channel; ``sample_rate`` in Hz."""
    stream = request.streams.get(stage) or begin(request, stage)
    if stream is None:
        return
    if request.requests.hooks.omni_playback_stalled.listeners:
        # The packet may end a stall that nobody was told of.
        if stream.watched is None:
            stream.watched = Watched(stream.playback, partial(_tell_stall, request, stage))
        else:
            stream.watched.look(now)
    stream.packet(now, samples, sample_rate, payloads)
    if stream.watched is not None:
        request.requests.stalls.came(stream.watched, now)


def finish(request: OpenRequest, outcome: str) -> list[EndedStream]:
    """Its streams are over; those that end with it are to be told of.

    Not when the engine was done: the listener may have left after it.
    """
    streams = list(request.streams.items())
    utterance, request.utterance = request.utterance, None
    if utterance is not None:
        utterance.settles(outcome, [_maker(request, stage) for stage, _ in streams])
        return []
    now = time.monotonic()
    ended = []
    for stage, stream in streams:
        stream.over(outcome, now, request.requests.stalls)
        ended.append(EndedStream(stream, _maker(request, stage), request.waited))
    return ended


def _maker(request: OpenRequest, stage: int) -> Maker:
    return Maker(
        request.request_id, request.model_name, stage, request.replica(stage), request.trace_id
    )


def _tell_stall(
    request: OpenRequest,
    stage: int,
    buffer_seconds: float,
    stalled_at: float,
    played_seconds: float,
) -> None:
    stalled = request.requests.hooks.omni_playback_stalled
    if stalled.listeners and not request.streams[stage].lacks_rate:
        stalled(
            PlaybackStalled(
                request_id=request.request_id,
                model_name=request.model_name,
                stage=stage,
                replica=request.replica(stage),
                buffer_seconds=buffer_seconds,
                stalled_at=stalled_at,
                played_seconds=played_seconds,
            )
        )
