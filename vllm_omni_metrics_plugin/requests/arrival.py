"""When a request arrived, from what the endpoint says in the time of the wall clock."""

from __future__ import annotations

import math
import time

#: Both clocks go at one rate; between two looks they part by more only if the wall clock was set.
_STEP_SECONDS = 0.1


class WallClock:
    """Tells what a time of the wall clock was on the monotonic one, unless it was set since."""

    def __init__(self) -> None:
        #: Wall minus monotonic, and the monotonic time since which it is that.
        self._offset = time.time() - time.monotonic()
        self._since = time.monotonic()

    def monotonic(self, stamp: float) -> float | None:
        """Monotonic seconds; None if the wall clock was set after ``stamp``, or may have been."""
        now = time.monotonic()
        offset = time.time() - now
        if abs(offset - self._offset) > _STEP_SECONDS:
            self._offset, self._since = offset, now
        at = stamp - offset
        if at > now:
            return now if at - now <= _STEP_SECONDS else None
        return at if at >= self._since else None


def is_time(value: object) -> bool:
    """Whether an endpoint's word for a time can be one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
