"""What a scheduler's step costs in which nothing starts, next to one that is not patched."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.patches.schedulers import wrap_schedule
from vllm_omni_metrics_plugin.patches.seams.switch import Switch
from vllm_omni_metrics_plugin.patches.state import EngineState

SideBySide = Callable[[Callable[[], Any], Callable[[], Any], int], tuple[float, float]]
Figure = tuple[str, float, str, str]

#: A step of the quickest model takes milliseconds; this stands for one of a hundredth of that.
_WORK = range(1_000)


def figures(side_by_side: SideBySide) -> list[Figure]:
    """(name, value, budget, how it was measured); ``side_by_side`` takes calls per round."""
    output = SimpleNamespace(scheduled_new_reqs=[])

    def schedule(self: object) -> object:
        sum(_WORK)
        return output

    patched = Switch(wrap_schedule(schedule, EngineState(HookRegistry().hooks)), schedule)
    placed = patched.function()
    on, off = side_by_side(lambda: placed(None), lambda: schedule(None), 5_000)
    how = f"a step of {1e6 * off:.0f} us in which nothing starts; {1e6 * (on - off):.2f} us more"
    return [("schedule_on_vs_off", on / off, "<= 1.1", how)]
