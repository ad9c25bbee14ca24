"""What the plugin costs, measured: ``make bench``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Stable name, value, budget or "-", and how it was measured.
Figure = tuple[str, float, str, str]
#: Takes two functions and calls per round, and gives the seconds per call of each.
SideBySide = Callable[[Callable[[], Any], Callable[[], Any], int], tuple[float, float]]
