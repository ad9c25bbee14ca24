"""How often the cache of processed multi-modal inputs was asked, and had it.

Each stage that takes such inputs has one cache, in the server, whatever the number of its replicas:
stage 0 from the beginning, later ones once they are given any. The engine counts in it, and nobody
takes the counts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Lookups(NamedTuple):
    """As vLLM's stat logger reads them."""

    queries: int
    hits: int


class InputCaches:
    """The caches of an engine's stages, and how far each was read.

    Read without taking, as vLLM does, and not with ``BaseRenderer.stat_mm_cache``: that puts a new
    counter in the place of one that another thread may just be adding to.
    """

    def __init__(self, later_stages: Mapping[int, Any]) -> None:
        """``later_stages``: the input processors of an orchestrator by stage, as they come."""
        self._later_stages = later_stages
        self._of_stage_0: Any = None
        self._read: dict[int, tuple[Any, Lookups]] = {}

    def belongs_to_stage_0(self, input_processor: Any) -> None:
        """The engine's own input processor is stage 0's."""
        self._of_stage_0 = input_processor

    def new_lookups(self, stage: int) -> Lookups | None:
        """Lookups since the last call; None if there were none, or the stage has no cache."""
        processor = self._later_stages.get(stage) if stage else self._of_stage_0
        counted = getattr(getattr(processor, "renderer", None), "_mm_cache_stats", None)
        if counted is None:
            return None
        now = Lookups(counted.queries, counted.hits)
        source, before = self._read.get(stage, (counted, Lookups(0, 0)))
        if source is not counted:
            before = Lookups(0, 0)
        if now == before:
            return None
        self._read[stage] = counted, now
        return Lookups(now.queries - before.queries, now.hits - before.hits)
