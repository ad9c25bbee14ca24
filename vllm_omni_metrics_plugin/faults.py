"""Where our own exceptions end: logged once per place, never passed on to the engine."""

from __future__ import annotations

import logging

logger = logging.getLogger("vllm.omni_metrics")

_reported: set[str] = set()


def contain(place: str) -> None:
    """Report the exception being handled, with its traceback the first time ``place`` has one.

    ``place`` names the code that failed; it comes from a fixed set, so the memory stays small.
    """
    if place in _reported:
        return
    _reported.add(place)
    logger.exception(
        "omni-metrics: fault in %s; the request is served as usual, its metrics may be incomplete. "
        "Further faults there are not logged",
        place,
    )
