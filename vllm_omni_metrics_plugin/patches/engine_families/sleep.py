"""Whether a replica sleeps: vLLM's stat logger has the family, and vLLM-Omni tells it nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.engine_families import stats
from vllm_omni_metrics_plugin.patches.seams.arguments import reading
from vllm_omni_metrics_plugin.patches.state import EngineState

#: Methods of an engine (0.30) and of its workers (before) that put it to sleep and wake it up.
_SLEEP = ("sleep", "handle_sleep_task")
_WAKE = ("wake_up", "handle_wake_task")
#: vLLM's, where the caller names none.
_DEFAULT_LEVEL = 1


def wrap_collective_rpc(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool.collective_rpc``: one replica was asked to do something, and has done it.

    A wake-up of some tags alone counts as awake, as it does in vLLM.
    """

    read = reading(original, "replica_id", "method", "args", "kwargs")

    @functools.wraps(original)
    async def collective_rpc(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await original(self, *args, **kwargs)
        with internal_errors.suppressed("a replica's sleep state"):
            replica, method, passed, named = read(self, *args, **kwargs)
            if (method in _SLEEP or method in _WAKE) and _is_done(result):
                level = _level(passed or (), named or {}) if method in _SLEEP else 0
                stats.replica_sleeps(state, self, replica, level)
        return result

    return collective_rpc


def _is_done(result: Any) -> bool:
    """What a replica cannot do, and what failed in it, comes back as a dictionary that says so."""
    return not isinstance(result, dict) or not (
        result.get("error") or result.get("supported") is False
    )


def _level(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    given = kwargs.get("level", kwargs.get("task", args[0] if args else _DEFAULT_LEVEL))
    if isinstance(given, Mapping):
        given = given.get("level", _DEFAULT_LEVEL)
    return int(getattr(given, "level", given))
