"""Why a request failed, in one word of a few: the first cause, not what it led to.

The engine's own ``client_disconnect``, ``client_abort`` and ``stage_error`` keep their names; the
other words tell apart what it calls ``stage_error`` or does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal

from vllm_omni_metrics_plugin.requests.exchange import Ending, Exchange
from vllm_omni_metrics_plugin.requests.outcome import CUT_SHORT

Failure = Literal[
    "client_disconnect",
    "client_abort",
    "invalid_request",
    "queue_full",
    "timeout",
    "dead_replica",
    "stage_error",
    "endpoint_error",
    "no_output",
    "other",
]

#: What an exception of ``generate`` says, by the name of its class or of one that it derives from,
#: the closest first.
_BY_CLASS: Mapping[str, Failure] = {
    "QueueOverflowError": "queue_full",
    "MaxQueuedTokensError": "queue_full",
    "EngineDeadError": "dead_replica",
    "StageUnavailableError": "dead_replica",
    "TimeoutError": "timeout",
    "EngineGenerateError": "stage_error",
    "VLLMServerError": "stage_error",
    "VLLMClientError": "invalid_request",
    "ValueError": "invalid_request",  # OmniClientError is one, as what input processors raise
}
#: The server gave up waiting: Request Timeout, Gateway Timeout.
_TIMEOUTS = (408, 504)


def cause_of(error: BaseException | None) -> Failure | None:
    """What an exception that ``generate`` raised says; None without one."""
    if error is None:
        return None
    names = (cls.__name__ for cls in type(error).__mro__)
    return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), "other")


def failure_of(
    outcome: str,
    ending: Ending | None,
    cause: Failure | None,
    exchange: Exchange | None,
    *,
    failed: bool,
    stopped: bool,
    delivered: bool,
    finish_reasons: Set[str | None],
) -> Failure | None:
    """Why a request did not run to its natural end; None if it did.

    ``cause`` of the exception that ``generate`` raised; the rest is as ``outcome_of`` has it.
    """
    if outcome not in CUT_SHORT:
        return None
    if outcome == "abort":
        left = exchange is not None and exchange.left and exchange.kind != "job" and not stopped
        return "client_disconnect" if left else "client_abort"
    if ending == "raised" and cause not in (None, "other"):
        return cause
    status = exchange.status if exchange is not None else None
    if status in _TIMEOUTS:
        return "timeout"
    if outcome == "rejected":
        return "invalid_request"
    if "error" in finish_reasons:
        return "stage_error"
    if ending == "raised":
        return "other"
    if ending == "ended" and not delivered:
        return "no_output"
    if exchange is not None:  # its outcome is an error, and not for what the engine did
        return "endpoint_error"
    return "endpoint_error" if failed else "other"
