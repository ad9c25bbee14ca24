"""Where our own exceptions end: counted by place, logged once, never passed on to the engine.

A place names the code that failed. It comes from a fixed set, so the counts stay small; they are
published as ``vllm:omni_metrics_internal_errors_total``.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

logger = logging.getLogger("vllm.omni_metrics")


#: Far more than there are.
MOST_PLACES = 200


class InternalErrors:
    """How often each place of this process has failed; any thread may add."""

    def __init__(self) -> None:
        self.clear()
        #: Called after each addition, by whoever adds; must not block.
        self.added: Callable[[], None] | None = None

    def clear(self) -> None:
        """Count anew, whoever was counting; for a forked child, which has only this thread."""
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, place: str, count: int = 1) -> bool:
        """Whether these are the first errors of ``place``."""
        with self._lock:
            if place not in self._counts and len(self._counts) >= MOST_PLACES:
                place = "elsewhere"  # another process may say anything
            self._counts[place] += count
            first = self._counts[place] == count
        if self.added is not None:
            self.added()
        return first

    def counts(self) -> dict[str, int]:
        """By place, as of now."""
        with self._lock:
            return dict(self._counts)


#: Those of this process, and in the server those that the stage engines' processes have reported.
errors = InternalErrors()

# What the parent has counted is the parent's to publish, and one of its threads may hold the lock.
os.register_at_fork(after_in_child=lambda: errors.clear())


def report(place: str, error: BaseException) -> None:
    """Count an exception that ends here, and log it with its traceback if it is the first there."""
    if errors.add(place):
        logger.error(
            "omni-metrics: internal error in %s; the request is served as usual, its metrics may "
            "be incomplete. Further errors there are counted, not logged",
            place,
            exc_info=(type(error), error, error.__traceback__),
        )


class suppressed:
    """``with suppressed("reading an output"):`` an exception raised in the block ends here.

    What is no ``Exception`` (an interrupt, a cancelled task) passes.
    """

    __slots__ = ("_place",)

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        report(self._place, error)
        return True
