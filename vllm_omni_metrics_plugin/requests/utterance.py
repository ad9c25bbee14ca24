"""What the client of a websocket says at once, though the engine gets it in several requests.

``/v1/audio/speech/stream`` makes a request of each sentence. Its listener hears one stream, with
the gaps between the sentences in it. All of it happens in the event loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from vllm_omni_metrics_plugin.requests.background import Background
from vllm_omni_metrics_plugin.requests.stalls import Stalls
from vllm_omni_metrics_plugin.requests.stream import (
    BROKEN,
    EndedStream,
    Maker,
    Stream,
    Waited,
    are_looked_at,
    tell_streams,
)


class OpenRequests(Protocol):
    """All that are open, to what their listeners hear."""

    hooks: Any
    #: Seconds that the players of its streams buffer.
    players: Sequence[float]
    #: Looks for the first sound of each.
    background: Background
    stalls: Stalls


class Utterance:
    """The streams of one input, by stage; each ends once.

    It is over when its client has been told so, has left, or nothing more can come; and when none
    of its requests is open.
    """

    __slots__ = (
        "_finished",
        "_heard",
        "_open",
        "_open_requests",
        "_outcome",
        "_over",
        "_requests",
        "_streams",
        "_told_of_error",
        "_waited",
    )

    def __init__(self, requests: OpenRequests) -> None:
        """``requests`` are all that are open."""
        self._open_requests = requests
        self._streams: dict[int, Stream] = {}
        #: Of the latest request, by stage.
        self._heard: dict[int, Maker] = {}
        #: Since when its listener waits: the first of its requests.
        self._waited: Waited | None = None
        self._requests = 0
        self._open = 0
        #: The worst of its requests so far.
        self._outcome = "stop"
        #: Its client was told of an error after its last request.
        self._told_of_error = False
        self._over = False
        self._finished = False

    def stream(self, stage: int) -> Stream:
        """The one that a request's audio of ``stage`` continues, or begins."""
        stream = self._streams.get(stage)
        if stream is None:
            requests = self._open_requests
            stream = self._streams[stage] = Stream(requests.players, requests.background)
        return stream

    def begins(self, waited: Waited) -> None:
        """A request of it, whose client has waited like this."""
        self._waited = self._waited or waited
        self._requests += 1
        self._open += 1
        self._told_of_error = False

    def settles(self, outcome: str, makers: Iterable[Maker]) -> None:
        """A request of it, and who made its streams."""
        self._open -= 1
        self._worsen(outcome)
        self._heard.update((maker.stage, maker) for maker in makers)
        if self._over:
            self._finish()

    def tells(self, *, error: bool) -> None:
        """Its client gets an event."""
        self._told_of_error = self._told_of_error or error

    def completes(self) -> None:
        """Its client is told that this was all."""
        self._end("stop")

    def leaves(self) -> None:
        """The client left."""
        self._end("abort")

    def breaks_off(self, *, failed: bool) -> None:
        """Nothing more comes, though it was not complete.

        ``failed``: the application raised. Unless something failed, the client wanted no more.
        """
        self._end("error" if failed or self._told_of_error else "abort")

    def _end(self, outcome: str) -> None:
        if not self._over:
            self._over = True
            self._worsen(outcome)
            self._finish()

    def _worsen(self, outcome: str) -> None:
        if outcome in BROKEN or (outcome == "abort" and self._outcome not in BROKEN):
            self._outcome = outcome

    def _finish(self) -> None:
        if self._open or self._finished:
            return
        self._finished = True
        requests, now = self._open_requests, time.monotonic()
        waited = self._waited or Waited(None)
        ended = []
        for stage, maker in self._heard.items():
            stream = self._streams[stage]
            stream.over(self._outcome, now, requests.stalls)
            ended.append(EndedStream(stream, maker, waited, self._requests))
        self._streams.clear()
        self._heard.clear()
        if not requests.hooks.omni_stream_finished.listeners:
            return
        if are_looked_at(ended):
            tell_streams(requests.hooks, ended)
        else:
            requests.background.put(partial(tell_streams, requests.hooks, ended))
