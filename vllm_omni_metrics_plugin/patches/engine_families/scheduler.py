"""The scheduler, in each stage engine's process: that it keeps statistics, and sends the last ones.

The engine sends scheduler statistics at most once a second and nothing when it falls idle, so the
state after the last request would never arrive. When an engine has no work left and what it sent
last, if anything, was of a busy moment, one more message follows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.engine_families import throttled
from vllm_omni_metrics_plugin.patches.seams.arguments import replacing

#: Set on a scheduler: what the server knows is not how it is now.
_OUTDATED = "_omni_metrics_outdated"
#: Set on a scheduler: the number of the API server that its newest request came from.
_CLIENT = "_omni_metrics_client"
#: Set on a scheduler: the statistics of steps that the throttle left out.
_LEFT_OUT = "_omni_metrics_left_out"
#: What is above 0 in the statistics of a scheduler that is not idle; not every release has all.
_LOADS = ("num_running_reqs", "num_waiting_reqs", "num_skipped_waiting_reqs", "kv_cache_usage")


def wrap_scheduler_init(original: Callable[..., None], _: object) -> Callable[..., None]:
    """``Scheduler.__init__``: statistics are kept with and without ``--log-stats``."""

    with_log_stats = replacing(original, "log_stats")

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        args, kwargs = with_log_stats(True, self, *args, **kwargs)
        original(*args, **kwargs)

    return __init__


def wrap_make_stats(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniSchedulerMixin.make_stats``: None while it throttles.

    What came with the steps in between is counted into the next statistics.
    """

    @functools.wraps(original)
    def make_stats(self: Any, *args: Any, **kwargs: Any) -> Any:
        with internal_errors.suppressed("counting in the steps that were left out"):
            left_out = self.__dict__.pop(_LEFT_OUT, None)
            if left_out:
                args, kwargs = throttled.with_earlier(left_out, args, kwargs)
        stats = original(self, *args, **kwargs)
        with internal_errors.suppressed("reading a scheduler's statistics"):
            busy = stats is None or any(getattr(stats, load, 0) > 0 for load in _LOADS)
            setattr(self, _OUTDATED, busy)
            if stats is None:
                setattr(self, _LEFT_OUT, throttled.of_step(args, kwargs))
            if self.requests:
                newest = next(reversed(self.requests.values()))
                setattr(self, _CLIENT, getattr(newest, "client_index", 0))
        return stats

    return make_stats


def wrap_idle(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``EngineCoreProc._notify_idle_state_callbacks``: before the engine waits for work."""

    @functools.wraps(original)
    def _notify_idle_state_callbacks(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        with internal_errors.suppressed("sending an idle engine's statistics"):
            if getattr(self.scheduler, _OUTDATED, False):
                _send_last_stats(self)
        return result

    return _notify_idle_state_callbacks


def _send_last_stats(core: Any) -> None:
    from vllm.v1.engine import EngineCoreOutputs

    scheduler = core.scheduler
    scheduler._last_stats_time = 0.0  # past the throttle, which starts anew with this message
    stats = scheduler.make_stats()
    setattr(scheduler, _OUTDATED, False)
    if stats is not None:
        # Any of several API servers may take them, but only one that still runs does.
        client = getattr(scheduler, _CLIENT, 0)
        core.output_queue.put_nowait((client, EngineCoreOutputs(scheduler_stats=stats)))
