"""Lookups of the caches of processed inputs: each is handed on once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vllm_omni_metrics_plugin.patches.engine_families.input_cache import InputCaches, Lookups


def processor(queries: int = 0, hits: int = 0) -> Any:
    counted = SimpleNamespace(queries=queries, hits=hits)
    return SimpleNamespace(renderer=SimpleNamespace(_mm_cache_stats=counted))


def test_lookups_are_handed_on_once() -> None:
    caches = InputCaches({})
    first = processor()
    caches.belongs_to_stage_0(first)
    assert caches.new_lookups(0) is None
    counted = first.renderer._mm_cache_stats
    counted.queries, counted.hits = 3, 1
    assert caches.new_lookups(0) == Lookups(3, 1)
    assert caches.new_lookups(0) is None
    counted.queries = 4
    assert caches.new_lookups(0) == Lookups(1, 0)


def test_later_stage_has_a_cache_from_its_first_input_on() -> None:
    later: dict[int, Any] = {}
    caches = InputCaches(later)
    caches.belongs_to_stage_0(processor(5, 5))
    assert caches.new_lookups(1) is None
    later[1] = processor(2, 0)
    assert caches.new_lookups(1) == Lookups(2, 0)
    assert caches.new_lookups(0) == Lookups(5, 5)


def test_counter_that_was_replaced_begins_anew() -> None:
    caches = InputCaches({})
    first = processor(3, 1)
    caches.belongs_to_stage_0(first)
    assert caches.new_lookups(0) == Lookups(3, 1)
    first.renderer._mm_cache_stats = SimpleNamespace(queries=3, hits=1)
    assert caches.new_lookups(0) == Lookups(3, 1)


def test_engine_without_such_inputs_has_no_lookups() -> None:
    caches = InputCaches({})
    assert caches.new_lookups(0) is None
    caches.belongs_to_stage_0(None)
    assert caches.new_lookups(0) is None
    caches.belongs_to_stage_0(SimpleNamespace(renderer=SimpleNamespace(_mm_cache_stats=None)))
    assert caches.new_lookups(0) is None
