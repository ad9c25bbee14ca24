"""The hook plugin: collects the values of open requests, and judges each once, at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import (
    Event,
    MediaPacket,
    ReplicaJoined,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    StageSubmitted,
    StreamFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.objectives.judge import Ended, judge
from vllm_omni_metrics_plugin.objectives.objective import Objective
from vllm_omni_metrics_plugin.objectives.values import CUT_SHORT, PER_REQUEST, Value

#: So many open requests are followed; what comes beyond them is judged by its end alone.
MOST_OPEN = 100_000

_TTFP, _LATENCY, _QUEUED = (
    "audio_ttfp_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
)
#: What a request that is seen to make this was asked for.
_MODALITIES = {
    "omni_audio_finished": "audio",
    "omni_image_finished": "image",
    "omni_video_finished": "video",
}


class _Open:
    """What is known of a request that has not ended."""

    __slots__ = (
        *("has_first_packet", "is_asked_to_speak", "left_stalled", "modalities", "streamed"),
        "values",
    )

    def __init__(self, modalities: Sequence[str]) -> None:
        #: What it asks for, and what it was seen to get.
        self.modalities = set(modalities)
        self.values: dict[str, float] = {}
        #: A stage that makes audio was given it.
        self.is_asked_to_speak = False
        #: Its audio is streamed, which is known by then.
        self.streamed = False
        self.has_first_packet = False
        self.left_stalled = False


class ObjectivesListener:
    """Gathers what the objectives' limits need of each request, by their hooks and no others.

    Whoever ends a request has it judged by :meth:`judge`, once, before its end is told.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = tuple(objectives)
        #: By request id.
        self._open: dict[str, _Open] = {}
        #: Model and stage of those that make audio.
        self._speaking: set[tuple[str | None, int]] = set()
        limits = dict.fromkeys(stem for one in objectives for stem in one.limits)
        by_hook: dict[str, dict[str, Value]] = {hook: {} for hook in _MODALITIES}
        for stem in limits:
            by_hook.setdefault(catalog.BY_STEM[stem].event, {})[stem] = PER_REQUEST[stem].value
        self._at_end = by_hook.pop("omni_request_finished", {})
        self._of_streams = by_hook.pop("omni_stream_finished", {})
        of_packets = by_hook.pop("omni_media_packet", {})
        if of_packets or any(one.streamed is not None for one in objectives):
            self.omni_media_packet = self._hearing_first_packets(of_packets)
        for hook, values in by_hook.items():
            setattr(self, hook, self._hearing(values, _MODALITIES.get(hook)))

    def __len__(self) -> int:
        """How many requests are followed."""
        return len(self._open)

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        if len(self._open) < MOST_OPEN:
            self._open[event.request_id] = _Open(event.modalities)

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        if "audio" in event.makes:
            self._speaking.add((event.model_name, event.stage))

    @hookimpl
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        if (event.model_name, event.stage) in self._speaking:
            request = self._open.get(event.request_id)
            if request is not None:
                request.is_asked_to_speak = True

    @hookimpl
    def omni_stream_finished(self, event: StreamFinished) -> None:
        request = self._open.get(event.request_id)
        if request is not None:
            request.streamed = True
            request.modalities.add("audio")
            request.left_stalled |= event.ending == "left_stalled"
            _take(request, self._of_streams, event)

    def judge(self, event: RequestFinished) -> list[RequestJudged]:
        """The verdicts on a request that has ended; it is followed no longer."""
        known = self._open.pop(event.request_id, None)
        about = [one for one in self._objectives if _is_about(one, known, event)]
        if not about:
            return []
        request = known or _Open(())
        _take(request, self._at_end, event)
        ended = Ended(
            outcome=event.outcome,
            waited_seconds=event.end_to_end_seconds,
            values=request.values,
            running=_running(request, event),
            left_stalled=request.left_stalled,
        )
        return [_verdict(objective, ended, event) for objective in about]

    def _hearing(self, values: dict[str, Value], modality: str | None) -> Callable[[Any], None]:
        """An implementation that takes these values of an event."""
        open_requests = self._open

        @hookimpl
        def hear(event: Any) -> None:
            request = open_requests.get(event.request_id)
            if request is not None:
                if modality is not None:
                    request.modalities.add(modality)
                _take(request, values, event)

        return hear

    def _hearing_first_packets(self, values: dict[str, Value]) -> Callable[[MediaPacket], None]:
        open_requests = self._open

        @hookimpl
        def hear(event: MediaPacket) -> None:
            if event.index == 0:
                request = open_requests.get(event.request_id)
                if request is not None:
                    request.has_first_packet = True
                    # What several requests of a websocket sound like is told when these have ended.
                    request.streamed |= event.streamed
                    _take(request, values, event)

        return hear


def _verdict(objective: Objective, ended: Ended, event: RequestFinished) -> RequestJudged:
    verdict, broken = judge(objective, ended)
    return RequestJudged(
        request_id=event.request_id,
        model_name=event.model_name,
        objective=objective.name,
        verdict=verdict,
        broken=broken,
    )


def _take(request: _Open, values: dict[str, Value], event: Event) -> None:
    for stem, value in values.items():
        found = value(event)
        if found is not None:
            request.values[stem] = max(found, request.values.get(stem, found))


def _running(request: _Open, event: RequestFinished) -> tuple[str, ...]:
    """The times that a request which was cut short never came to the end of."""
    if event.outcome not in CUT_SHORT:
        return ()
    waits_for_audio = request.streamed and not request.has_first_packet
    return (
        _LATENCY,
        *((_TTFP,) if waits_for_audio else ()),
        *(() if event.started else (_QUEUED,)),
    )


def _is_about(objective: Objective, request: _Open | None, event: RequestFinished) -> bool:
    """What is not known of a request takes it out of no objective: a failure would escape so."""
    if not objective.is_about_model(event.model_name):
        return False
    if request is None:
        return True
    seen = request.modalities
    if objective.modality is not None and seen and objective.modality not in seen:
        return False
    is_known = request.streamed or request.is_asked_to_speak or event.outcome not in CUT_SHORT
    return objective.streamed is None or not is_known or objective.streamed == request.streamed
