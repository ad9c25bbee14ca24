"""How a request ended, in one word: what its client was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Set

from vllm_omni_metrics_plugin.requests.exchange import Ending, Exchange

#: Outcomes of requests that did not run to their natural end.
CUT_SHORT = frozenset({"abort", "error", "rejected"})
#: One stage that ended so decides for the request; the first of these that any stage has.
_DECISIVE = ("error", "abort", "length")


def ending_of(error: BaseException | None) -> Ending:
    """How a generator was over, by what was raised in or into it."""
    if error is None:
        return "ended"
    return "closed" if isinstance(error, (GeneratorExit, asyncio.CancelledError)) else "raised"


def outcome_of(
    ending: Ending | None,
    exchange: Exchange | None,
    *,
    failed: bool,
    stopped: bool = False,
    complete: bool,
    delivered: bool,
    finish_reasons: Set[str | None],
) -> str:
    """``stop``, ``length``, ``abort``, ``error``, ``rejected`` or another word of the engine.

    ``ending`` of ``generate``, None while it goes on, and of the exchange with the client, None
    where nobody was answered (a script) or it cannot be seen. ``failed``: this request's part of
    the response is an error. ``stopped``: the client was told that it stopped.
    ``complete``: the engine marked an output as the last one. ``finish_reasons`` are those of all
    stages and outputs.
    """
    if stopped:
        cut_short: str | None = "abort"
    elif exchange is None:
        cut_short = _without_exchange(ending, complete)
    else:
        cut_short = _with_exchange(ending, exchange, failed, complete, finish_reasons)
    if cut_short is not None:
        return cut_short
    if not delivered:
        return "error"  # it ended without a word; that is no success
    for decisive in _DECISIVE:
        if decisive in finish_reasons:
            return decisive
    return min((word for word in finish_reasons if word and word != "stop"), default="stop")


def _without_exchange(ending: Ending | None, complete: bool) -> str | None:
    if ending == "raised":
        return "error"
    return "abort" if ending == "closed" and not complete else None


def _with_exchange(
    ending: Ending | None,
    exchange: Exchange,
    failed: bool,
    complete: bool,
    finish_reasons: Set[str | None],
) -> str | None:
    """The first that fits decides; None leaves it to the engine."""
    refused = exchange.status is not None and 400 <= exchange.status < 500
    if ending == "raised":
        return "rejected" if refused else "error"
    if exchange.left:
        return "abort"
    if refused:
        return "rejected"
    if exchange.kind == "job" and "abort" in finish_reasons:
        # A job that is deleted ends in the engine first, and fails for want of output.
        return "abort"
    if failed or exchange.failed:
        return "error"
    if exchange.kind == "websocket":
        # Without an error event the server stopped because it was asked to.
        return "abort" if ending == "closed" and not complete else None
    if ending != "ended":
        return "error"
    if exchange.kind == "http" and (not exchange.completed or (exchange.status or 0) >= 500):
        return "error"
    return None
