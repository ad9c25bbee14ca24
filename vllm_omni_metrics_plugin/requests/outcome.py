"""How a request ended, in one word."""

from __future__ import annotations

import asyncio
from collections.abc import Set

#: Outcomes of requests that did not run to their natural end.
CUT_SHORT = frozenset({"abort", "error", "rejected"})
#: One stage that ended so decides for the request; the first of these that any stage has.
_DECISIVE = ("error", "abort", "length")


def outcome_of(
    error: BaseException | None,
    *,
    refused: bool,
    complete: bool,
    delivered: bool,
    finish_reasons: Set[str | None],
) -> str:
    """``stop``, ``length``, ``abort``, ``error``, ``rejected`` or another word of the engine.

    ``error`` was raised in the response, or into it when the client left. ``refused``: it tells the
    client that its request is invalid (HTTP 4xx), which counts only while nothing was delivered.
    ``complete``: the engine marked an output as the last one. ``finish_reasons`` are those of all
    stages and outputs.
    """
    if isinstance(error, (GeneratorExit, asyncio.CancelledError)):
        if not complete:
            return "abort"
    elif error is not None:
        return "rejected" if refused and not delivered else "error"
    if not delivered:
        return "error"  # it ended without a word; that is no success
    for decisive in _DECISIVE:
        if decisive in finish_reasons:
            return decisive
    return min((word for word in finish_reasons if word and word != "stop"), default="stop")
