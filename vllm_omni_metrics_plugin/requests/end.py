"""The last events of a request, in their order: its streams, its verdicts, and then the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import RequestFinished, RequestJudged
from vllm_omni_metrics_plugin.requests.stream import EndedStream, tell_streams

#: Says of a request that has ended which objectives it met; its event has no verdicts yet.
Judge = Callable[[RequestFinished], Sequence[RequestJudged]]


def tell(
    hooks: Any,
    judge: Judge | None,
    ended: Sequence[EndedStream],
    event: RequestFinished | None,
) -> None:
    """Call the hooks; ``event`` still lacks its streams and verdicts, None if nobody asks for it.

    All that came of the ``ended`` streams was looked at.
    """
    streams = tell_streams(hooks, ended) if ended else ()
    if event is None:
        return
    if streams:
        event = replace(event, streams=streams)
    if judge is not None:
        event = _judged(hooks, judge, event)
    finished = hooks.omni_request_finished
    if finished.listeners:
        finished(event)


def _judged(hooks: Any, judge: Judge, event: RequestFinished) -> RequestFinished:
    with internal_errors.suppressed("judging a request"):
        verdicts = tuple(judge(event))
        hook = hooks.omni_request_judged
        if hook.listeners:
            for verdict in verdicts:
                hook(verdict)
        return replace(event, verdicts=verdicts) if verdicts else event
    return event
