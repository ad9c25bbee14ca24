"""Statistics of the steps that the throttle of vLLM-Omni's schedulers leaves out.

A scheduler hands its statistics on at most once a second. What it counts itself waits until then;
what comes with each step as an argument (speculative decoding, KV connectors, FLOPs) would be lost.
"""

from __future__ import annotations

import dataclasses
from itertools import zip_longest
from typing import Any

#: Arguments of ``Scheduler.make_stats`` that describe one step, with their places.
STEP_STATS = {"spec_decoding_stats": 0, "kv_connector_stats": 1, "perf_stats": 3}
#: Fields that say how the engine is set up, and what was not counted.
_SETTINGS = ("num_spec_tokens",)


def of_step(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The statistics of a step among the arguments of ``make_stats``."""
    given = {n: args[i] if i < len(args) else kwargs.get(n) for n, i in STEP_STATS.items()}
    return {name: stats for name, stats in given.items() if stats is not None}


def with_earlier(
    earlier: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``make_stats`` with those of earlier steps counted in."""
    positional = list(args)
    named = dict(kwargs)
    now = of_step(args, kwargs)
    for name, stats in earlier.items():
        total = added(stats, now[name]) if name in now else stats
        place = STEP_STATS[name]
        if place < len(positional):
            positional[place] = total
        else:
            named[name] = total
    return tuple(positional), named


def added(earlier: Any, later: Any) -> Any:
    """Two steps' statistics as one, in the earlier object; the connectors' know how by themselves.

    Raises TypeError for two that are not of one kind.
    """
    if type(earlier) is not type(later):
        raise TypeError(f"{type(later).__name__} cannot be added to {type(earlier).__name__}")
    aggregate = getattr(earlier, "aggregate", None)
    if aggregate is not None:
        return aggregate(later)
    for field in dataclasses.fields(earlier):
        if field.name not in _SETTINGS:
            values = getattr(earlier, field.name), getattr(later, field.name)
            setattr(earlier, field.name, _sum(*values))
    return earlier


def _sum(earlier: Any, later: Any) -> Any:
    """Numbers, and lists of them by position; of anything else (details of one step) the later."""
    if isinstance(earlier, list) and isinstance(later, list):
        return [a + b for a, b in zip_longest(earlier, later, fillvalue=0)]
    if isinstance(earlier, (int, float)) and isinstance(later, (int, float)):
        return earlier + later
    return later
