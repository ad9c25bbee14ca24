"""What the stages execute: from a scheduler's first admission of a request to its end there.

Starts come from the schedulers' processes, ends from the orchestrator or, for diffusion engines,
from the schedulers, too. Either may be late or lost, so each heals: a stage's finish proves that it
started, and the end of a request ends what it executes, but where the engine goes on with it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from vllm_omni_metrics_plugin.hooks import StageEnded, StageStarted
from vllm_omni_metrics_plugin.requests.bindings import Binding
from vllm_omni_metrics_plugin.requests.work import StageWork

#: A start that has not come so long after the stage's finish is lost. It is sent before the stage
#: does anything, so it is late only where a busy process lets its sender wait.
LATE_SECONDS = 1.0
#: An end that has not come so long after its request's is lost.
LONGEST_SECONDS = 600.0
#: Of either kind that are waited for.
MOST_WAITING = 1_024

News = list[StageStarted | StageEnded]


class OpenRequest(Protocol):
    """What is needed of one."""

    request_id: str
    model_name: str
    stages: dict[int, StageWork]


class _Waiting(NamedTuple):
    """Something that is still to come, and since when, in monotonic seconds."""

    since: float
    stage: int
    model_name: str
    work: StageWork


class Executions:
    """Of the open requests, and of closed ones that an engine goes on with. Any thread may tell."""

    def __init__(self, hooks: Any) -> None:
        self._hooks = hooks
        self._lock = threading.Lock()
        #: Parts that are finished and whose start is not known, the oldest first.
        self._late: OrderedDict[tuple[str, int], _Waiting] = OrderedDict()
        #: Parts of closed requests whose end is not known, the oldest first.
        self._going_on: OrderedDict[tuple[str, int], _Waiting] = OrderedDict()

    def __len__(self) -> int:
        """How many parts are remembered beyond their requests."""
        return len(self._late) + len(self._going_on)

    def started(
        self,
        request_id: str,
        request: OpenRequest | None,
        stage: int,
        replica: int | None,
        at: float | None,
        *,
        tells_end: bool = False,
        others: int | None = None,
    ) -> None:
        """A scheduler admitted the request; ``at`` is None if its clock is another one.

        ``others`` were executing there already, if that is known.
        """
        with self._lock:
            late = self._late.pop((request_id, stage), None)
            work = request.stages.get(stage) if request is not None else None
            name = request.model_name if request is not None else ""
            if late is not None:
                work, name = late.work, late.model_name
            if work is None or work.started:
                return
            work.started = True
            work.started_at = at
            work.tells_end = tells_end
            if work.replica is None:
                work.replica = replica
            news = self._surplus(name, stage, work.replica, others)
            news += _announced(request_id, stage, name, work)
        self._call_hooks(news)

    def companion_started(
        self, request_id: str, binding: Binding, stage: int, at: float | None
    ) -> None:
        """An extra request of guided generation was admitted."""
        replica = binding.replica(stage)
        if replica is not None and binding.parent_id is not None:
            self._call_hooks(
                [
                    StageStarted(
                        request_id=request_id,
                        stage=stage,
                        replica=replica,
                        started_at=at,
                        parent_request_id=binding.parent_id,
                        model_name=binding.model_name,
                    )
                ]
            )

    def placed(self, request: OpenRequest, stage: int) -> None:
        """The replica is known now; its scheduler may have been faster."""
        work = request.stages.get(stage)
        if work is None or not work.started or work.announced:
            return
        with self._lock:
            news = _announced(request.request_id, stage, request.model_name, work)
        self._call_hooks(news)

    def ended(
        self, request_id: str, request: OpenRequest | None, stage: int, at: float | None
    ) -> None:
        """A scheduler executes the request no more."""
        with self._lock:
            going_on = self._going_on.pop((request_id, stage), None)
            if going_on is not None:
                news = _ended(request_id, stage, going_on.model_name, going_on.work, at)
            else:
                work = request.stages.get(stage) if request is not None else None
                if request is None or work is None or work.ended:
                    return
                news = _over(request_id, stage, request.model_name, work, at)
        self._call_hooks(news)

    def finished(self, request: OpenRequest, stage: int, at: float) -> None:
        """The stage's last output is here, which proves that it started."""
        news = self._lost(at)
        with self._lock:
            work = request.stages.get(stage)
            if work is not None and not work.ended:
                key = (request.request_id, stage)
                if work.started:
                    news += _ended(*key, request.model_name, work, at)
                else:
                    work.ended, work.ended_at = True, at
                    self._late[key] = _Waiting(at, stage, request.model_name, work)
        self._call_hooks(news)

    def closed(self, request: OpenRequest, at: float, proven: Iterable[int]) -> None:
        """The request is over; stages of ``proven`` gave it something."""
        news: News = []
        with self._lock:
            for stage, work in list(request.stages.items()):
                if work.ended or work.replica is None or not (work.started or stage in proven):
                    continue
                key = (request.request_id, stage)
                if work.started and work.tells_end:
                    self._going_on[key] = _Waiting(at, stage, request.model_name, work)
                else:
                    news += _over(*key, request.model_name, work, at)
        self._call_hooks(news)

    def replica_left(self, model_name: str, stage: int, replica: int) -> None:
        """Nothing more will be told of what it executed."""
        now = time.monotonic()
        with self._lock:
            gone = self._going_on_at(model_name, stage, replica)
            news = [event for key in gone for event in self._give_up(key, now)]
        self._call_hooks(news)

    def forget_outdated(self) -> None:
        """Take what has not come for so long for lost; called now and then."""
        self._call_hooks(self._lost(time.monotonic()))

    def _lost(self, now: float) -> News:
        if not self._late and not self._going_on:
            return []
        news: News = []
        with self._lock:
            while self._late:
                key, waiting = next(iter(self._late.items()))
                if len(self._late) <= MOST_WAITING and now - waiting.since < LATE_SECONDS:
                    break
                del self._late[key]
                work = waiting.work
                work.started = True
                if work.input_at is not None and not work.gave_output:
                    # The only thing that came was that there is nothing: it never executed.
                    work.started_at = work.ended_at
                news += _announced(*key, waiting.model_name, work)
            while self._going_on:
                key, waiting = next(iter(self._going_on.items()))
                if len(self._going_on) <= MOST_WAITING and now - waiting.since < LONGEST_SECONDS:
                    break
                news += self._give_up(key, None)
        return news

    def _surplus(
        self, model_name: str, stage: int, replica: int | None, others: int | None
    ) -> News:
        """The ends that were lost, of those that cannot be among the ``others`` of a replica."""
        if others is None or replica is None or not self._going_on:
            return []
        there = self._going_on_at(model_name, stage, replica)
        return [
            event
            for key in there[: max(0, len(there) - others)]
            for event in self._give_up(key, None)
        ]

    def _going_on_at(self, model_name: str, stage: int, replica: int) -> list[tuple[str, int]]:
        return [
            key
            for key, waiting in self._going_on.items()
            if (waiting.model_name, waiting.stage, waiting.work.replica)
            == (model_name, stage, replica)
        ]

    def _give_up(self, key: tuple[str, int], at: float | None) -> News:
        waiting = self._going_on.pop(key)
        return _ended(*key, waiting.model_name, waiting.work, at)

    def _call_hooks(self, news: News) -> None:
        for event in news:
            hook = (
                self._hooks.omni_stage_started
                if isinstance(event, StageStarted)
                else self._hooks.omni_stage_ended
            )
            if hook.listeners:
                hook(event)


def _over(request_id: str, stage: int, model_name: str, work: StageWork, at: float | None) -> News:
    """It is over, whether its start was seen or not."""
    if work.started:
        return _ended(request_id, stage, model_name, work, at)
    work.started = work.ended = True
    work.ended_at = at
    return _announced(request_id, stage, model_name, work)


def _announced(request_id: str, stage: int, model_name: str, work: StageWork) -> News:
    """The start of a part, and its end if that is past."""
    if work.replica is None:
        return []  # it follows when it is known
    work.announced = True
    start = StageStarted(
        request_id=request_id,
        stage=stage,
        replica=work.replica,
        started_at=work.started_at,
        submitted_at=work.submitted_at,
        input_at=work.input_at,
        model_name=model_name,
    )
    if not work.ended:
        return [start]
    return [start, _end_of(request_id, stage, model_name, work, work.replica)]


def _ended(request_id: str, stage: int, model_name: str, work: StageWork, at: float | None) -> News:
    work.ended, work.ended_at = True, at
    if not work.announced or work.replica is None:
        return []  # both follow when the replica is known
    return [_end_of(request_id, stage, model_name, work, work.replica)]


def _end_of(
    request_id: str, stage: int, model_name: str, work: StageWork, replica: int
) -> StageEnded:
    return StageEnded(
        request_id=request_id,
        stage=stage,
        replica=replica,
        ended_at=work.ended_at,
        started_at=work.started_at,
        model_name=model_name,
    )
