"""The schedulers of the stages, in whatever process they are: what they begin and end to execute.

A scheduler's own request object carries the mark of its first admission: preemption, a vocoder's
requeueing after each chunk and a new segment of streamed input make a request new again, and the
mark goes with the object. A step in which nothing starts costs one truth test.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel.frames import EndedRecord, StartedRecord
from vllm_omni_metrics_plugin.patches.process import clock, own_replica
from vllm_omni_metrics_plugin.patches.state import EngineState

#: Set on a scheduler's request object.
_STARTED = "_omni_metrics_started"
#: Beyond it the channel takes none.
_LONGEST_ID = 512
_START = "a request that a scheduler admits"
_END = "a request that a scheduler is done with"


def wrap_schedule(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``schedule`` of ``OmniARScheduler`` and ``OmniGenerationScheduler``."""

    @functools.wraps(original)
    def schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        try:
            if output.scheduled_new_reqs:
                stage = self.vllm_config.model_config.stage_id
                ids = [new.req_id for new in output.scheduled_new_reqs]
                _report_starts(state, ids, self.requests, stage, own_replica())
        except Exception as error:
            internal_errors.report(_START, error)
        return output

    return schedule


def wrap_diffusion_schedule(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``BaseScheduler.schedule`` of the diffusion engine."""

    @functools.wraps(original)
    def schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        try:
            if output.scheduled_new_reqs:
                ids = [new.request_id for new in output.scheduled_new_reqs]
                others = max(0, output.num_running_reqs - len(ids))
                stage = self.od_config.stage_id
                _report_starts(state, ids, self._request_states, stage, None, others)
        except Exception as error:
            internal_errors.report(_START, error)
        return output

    return schedule


def wrap_finish(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``BaseScheduler._finish_requests``: every end of a diffusion request; returns their ids.

    An aborted request comes here only when the batch that it is in is over.
    """

    @functools.wraps(original)
    def _finish_requests(self: Any, *args: Any, **kwargs: Any) -> Any:
        finished = original(self, *args, **kwargs)
        if finished:
            with internal_errors.suppressed(_END):
                _report_ends(state, finished, self._request_states, self.od_config.stage_id)
        return finished

    return _finish_requests


def _report_starts(
    state: EngineState,
    request_ids: list[str],
    known: Any,
    stage: int | None,
    replica: int | None,
    others: int | None = None,
) -> None:
    report = state.report
    if report is None:
        return
    now = time.monotonic()
    for request_id in request_ids:
        request = known.get(request_id)
        if request is None or hasattr(request, _STARTED) or len(request_id) > _LONGEST_ID:
            continue
        setattr(request, _STARTED, True)
        report(
            StartedRecord(
                request_id=request_id,
                stage=int(stage or 0),
                replica=replica,
                started_at=now,
                clock=clock(),
                tells_end=others is not None,
                others=others,
            )
        )
        if others is not None:
            others += 1


def _report_ends(
    state: EngineState, request_ids: Iterable[str], known: Any, stage: int | None
) -> None:
    report = state.report
    if report is None:
        return
    now = time.monotonic()
    for request_id in request_ids:
        # One that never started has nothing to end.
        if hasattr(known.get(request_id), _STARTED):
            report(
                EndedRecord(
                    request_id=request_id, stage=int(stage or 0), ended_at=now, clock=clock()
                )
            )
