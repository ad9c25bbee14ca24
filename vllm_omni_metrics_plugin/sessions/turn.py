"""One answer of a session, from its first word to what became of its audio."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from vllm_omni_metrics_plugin.hooks import TurnFinished, TurnPlayed, TurnStarted
from vllm_omni_metrics_plugin.requests import Exchange, OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.sessions.speech import Asked

#: Outcomes of a turn that was generated to its end.
COMPLETE = ("stop", "length")


class Turn:
    """Counts samples; keeps no sound."""

    __slots__ = (
        "_first_audio_at",
        "_model_name",
        "_played_milliseconds",
        "_replica",
        "_request",
        "_sample_rate",
        "_session_id",
        "_stage",
        "_wants_audio",
        "asked",
        "detached",
        "interrupted",
        "samples",
        "started_at",
        "turn_id",
    )

    def __init__(
        self,
        requests: OpenRequests,
        session_id: str,
        turn_id: str,
        request_id: str | None,
        model_name: str,
        asked: Asked,
        modalities: tuple[str, ...],
    ) -> None:
        """``request_id`` is the one under which the stages work on it, if that is known."""
        self.turn_id = turn_id
        self.asked = asked
        self.started_at = time.monotonic()
        #: Of its audio, per channel.
        self.samples = 0
        #: What was not played of its audio will not be, as somebody interrupted it.
        self.interrupted = False
        #: Its client was gone when it ended.
        self.detached = False
        self._session_id = session_id
        self._model_name = model_name
        self._wants_audio = "audio" in modalities
        self._sample_rate: int | None = None
        self._stage = 0
        self._replica: int | None = None
        self._first_audio_at: float | None = None
        #: As the client acknowledged; None if it did not.
        self._played_milliseconds: int | None = None
        since = self.started_at if asked.deferred else asked.at
        self._request = _begin(requests, turn_id, request_id, model_name, since, modalities)
        if requests.hooks.omni_turn_started.listeners:
            requests.hooks.omni_turn_started(
                TurnStarted(
                    session_id=session_id,
                    turn_id=turn_id,
                    request_id=self._request.request_id,
                    model_name=model_name,
                    origin=asked.origin,
                    started_at=self.started_at,
                    deferred=asked.deferred,
                )
            )

    def audio(self, payload: Mapping[str, Any], stage: int, replica: int | None) -> None:
        """A packet leaves for the client.

        ``payload`` is like a stage's multimodal output. ``replica`` made it, unless the stage was
        given the turn itself.
        """
        request = self._request
        work = request.stages.get(stage)
        if work is not None:
            work.delivery = "delta"  # what leaves is new, whatever the stage hands on
            replica = work.replica
        request.audio_output([payload], stage, replica, finished=False)
        output = request.audio[stage]
        self.samples, self._sample_rate = output.samples, output.sample_rate
        self._stage, self._replica = stage, output.replica
        if self.samples and self._first_audio_at is None:
            self._first_audio_at = time.monotonic()

    def played(self, milliseconds: int) -> None:
        """The client says that it has played so much by now."""
        self._played_milliseconds = max(milliseconds, self._played_milliseconds or 0)

    @property
    def is_played(self) -> bool:
        """The client says that it has played all of it; it counts whole milliseconds."""
        played, rate = self._played_milliseconds, self._sample_rate
        return played is not None and rate is not None and played >= self.samples * 1000 // rate

    @property
    def may_be_playing(self) -> bool:
        """Whether its client can still play some of it."""
        if self.is_played or self._first_audio_at is None or self._sample_rate is None:
            return False
        seconds = self.samples / self._sample_rate
        return (
            self._played_milliseconds is not None
            or time.monotonic() < self._first_audio_at + seconds
        )

    def finish(self, outcome: str, requests: OpenRequests) -> None:
        """The engine answers no more; ``stop`` becomes ``length`` where a stage says so."""
        request, now = self._request, time.monotonic()
        if outcome == "stop" and any(
            "length" in work.finish_reasons for work in list(request.stages.values())
        ):
            outcome = "length"
        _end(request, outcome, detached=self.detached, wants_audio=self._wants_audio)
        if not requests.hooks.omni_turn_finished.listeners:
            return
        asked, first = self.asked, self._first_audio_at
        waited = None if first is None or asked.deferred else first
        by_server = asked.origin == "speech" and asked.heard_at is not None
        requests.hooks.omni_turn_finished(
            TurnFinished(
                session_id=self._session_id,
                turn_id=self.turn_id,
                request_id=request.request_id,
                model_name=self._model_name,
                outcome=outcome,
                origin=asked.origin,
                latency_seconds=_difference(waited, asked.at),
                heard_latency_seconds=_difference(waited, asked.heard_at),
                endpoint_delay_seconds=_difference(asked.at, asked.heard_at) if by_server else None,
                duration_seconds=now - self.started_at,
                samples=self.samples,
                deferred=asked.deferred,
                detached=self.detached,
            )
        )

    def settle(self, hooks: Any, *, unheard: bool = False) -> None:
        """What became of its audio is certain, as far as it ever will be.

        ``unheard``: its client never came back.
        """
        if not hooks.omni_turn_played.listeners:
            return
        acknowledged = self._acknowledged()
        left = self.samples - acknowledged
        is_known = self.interrupted and self._played_milliseconds is not None
        hooks.omni_turn_played(
            TurnPlayed(
                session_id=self._session_id,
                turn_id=self.turn_id,
                model_name=self._model_name,
                stage=self._stage,
                replica=self._replica,
                acknowledged=acknowledged,
                discarded=left if is_known else 0,
                unknown=0 if is_known else left,
                unheard=unheard and self.detached,
            )
        )

    def _acknowledged(self) -> int:
        if self.is_played:
            return self.samples
        played, rate = self._played_milliseconds, self._sample_rate
        return 0 if played is None or rate is None else played * rate // 1000


def _begin(
    requests: OpenRequests,
    turn_id: str,
    request_id: str | None,
    model_name: str,
    arrived_at: float | None,
    modalities: tuple[str, ...],
) -> OpenRequest:
    if request_id is None or request_id in requests.by_id:
        request_id = turn_id  # so that its end is its own
    earlier = requests.bindings.of(request_id)
    request = requests.begin(request_id, turn_id, model_name, arrived_at, modalities=modalities)
    if earlier is not None:  # stages that work on several turns got it with the first of them
        for stage, replica in list(earlier.replicas.items()):
            requests.bindings.bind(request_id, stage, replica, None)
    return request


def _end(request: OpenRequest, outcome: str, *, detached: bool, wants_audio: bool) -> None:
    if outcome in COMPLETE:
        request.complete = request.delivered = True
        if not wants_audio and not request.packets:
            request.streams.clear()  # its stages may have been given it; nobody listens
    elif outcome == "error":
        request.finish_reasons.add("error")
    elif outcome == "abort" and detached:
        request.exchange = Exchange("websocket")
        request.exchange.left = True
    else:
        request.stopped = True
    request.end(None)


def _difference(until: float | None, since: float | None) -> float | None:
    return None if until is None or since is None else until - since
