"""Engine statistics that releases up to 0.24 lose on their way to the stat logger.

Their stage pools replace the caller's iteration statistics by others that nobody sees again, so
that times and tokens of requests never arrive, and drop every message that has statistics alone,
so that the last state of an engine that falls idle does not. Both are recorded here as later
releases do it themselves.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.engine_families import stats
from vllm_omni_metrics_plugin.patches.seams.arguments import reading
from vllm_omni_metrics_plugin.patches.state import EngineState

#: By output processor, what it was last given to fill in.
_filled: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def wrap_process_outputs(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``MultimodalOutputProcessor.process_outputs``: fills in the statistics that are lost."""

    read = reading(original, "iteration_stats")

    @functools.wraps(original)
    def process_outputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        with internal_errors.suppressed("recording an iteration"):
            [_filled[self]] = read(self, *args, **kwargs)
        return result

    return process_outputs


def wrap_process_raw_outputs(
    original: Callable[..., Any], state: EngineState
) -> Callable[..., Any]:
    """``StagePool.process_llm_raw_outputs``: one batch of one replica."""

    @functools.wraps(original)
    async def process_llm_raw_outputs(
        self: Any, replica_id: int, raw_outputs: Any, *args: Any, **kwargs: Any
    ) -> Any:
        outputs = await original(self, replica_id, raw_outputs, *args, **kwargs)
        with internal_errors.suppressed("recording an iteration"):
            iteration_stats = _filled.pop(self.output_processor, None)
            if iteration_stats is not None:
                stats.record_iteration(state, self, replica_id, iteration_stats)
        return outputs

    return process_llm_raw_outputs


def wrap_poll(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``StagePool._poll_stage_raw``: None for a message without outputs, whatever else is in it."""

    @functools.wraps(original)
    async def _poll_stage_raw(self: Any, client: Any, *args: Any, **kwargs: Any) -> Any:
        reader = _Reader(client)
        outputs = await original(self, reader, *args, **kwargs)
        with internal_errors.suppressed("recording an idle engine's statistics"):
            if outputs is None:
                lost = getattr(reader.read, "scheduler_stats", None)
                if lost is not None:
                    stats.record_scheduler(state, self, self.clients.index(client), lost)
        return outputs

    return _poll_stage_raw


class _Reader:
    """Stands for a client while one message is read from it, and keeps that message."""

    __slots__ = ("_client", "read")

    def __init__(self, client: Any) -> None:
        self._client = client
        self.read: Any = None

    async def get_output_async(self, *args: Any, **kwargs: Any) -> Any:
        self.read = await self._client.get_output_async(*args, **kwargs)
        return self.read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)
