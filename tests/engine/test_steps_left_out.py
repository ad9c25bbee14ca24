"""Statistics that come with each step, of steps between two that the scheduler reports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin import internal_errors

pytestmark = pytest.mark.usefixtures("seams")


class Cache:
    usage = 0.5

    def make_prefix_cache_stats(self) -> Any:
        from vllm.v1.metrics.stats import PrefixCacheStats

        return PrefixCacheStats()


@pytest.fixture
def scheduler() -> Any:
    """vLLM-Omni's real ``make_stats`` over vLLM's, with what they read."""
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm_omni.core.sched.omni_scheduler_mixin import OmniSchedulerMixin

    class Throttled(OmniSchedulerMixin, Scheduler):
        def __init__(self) -> None:
            self.log_stats = True
            self.kv_cache_manager = Cache()
            self.connector_prefix_cache_stats = self.kv_metrics_collector = None
            self.running: list[Any] = []
            self.waiting: list[Any] = []
            self.skipped_waiting: list[Any] = []
            self.requests: dict[str, Any] = {}

    return Throttled()


def drafted(drafts: int, accepted: int) -> Any:
    from vllm.v1.spec_decode.metrics import SpecDecodingStats

    stats = SpecDecodingStats.new(3)
    for _ in range(drafts):
        stats.observe_draft(3, accepted)
    return stats


def steps(scheduler: Any, *given: tuple[Any, ...]) -> Any:
    """What is reported of the last of these steps; those before are within a second of each other.

    The first step ever is reported; so one without anything comes before.
    """
    assert scheduler.make_stats(None, None, None, None) is not None
    for step in given[:-1]:
        assert scheduler.make_stats(*step) is None, "throttled"
    scheduler._last_stats_time = 0.0
    return scheduler.make_stats(*given[-1])


def test_tokens_of_every_speculative_step_are_reported(scheduler: Any) -> None:
    given = [(drafted(n, accepted), None, None, None) for n, accepted in ((2, 1), (1, 3), (4, 0))]
    reported = steps(scheduler, *given).spec_decoding_stats
    assert reported.num_spec_tokens == 3, "a setting"
    assert reported.num_drafts == 7
    assert reported.num_draft_tokens == 21
    assert reported.num_accepted_tokens == 5
    assert reported.num_accepted_tokens_per_pos == [3, 1, 1]


def test_operations_of_every_step_are_reported_by_an_idle_engine_too(scheduler: Any) -> None:
    from vllm.v1.metrics.perf import PerfStats

    given = [(None, None, None, PerfStats(n, 10 * n, 100 * n)) for n in (1, 2)]
    reported = steps(scheduler, *given, ()).perf_stats
    assert (
        reported.num_flops_per_gpu,
        reported.num_read_bytes_per_gpu,
        reported.num_write_bytes_per_gpu,
    ) == (3, 30, 300)


def test_connector_adds_its_own_statistics_up(scheduler: Any) -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

    class Bytes(KVConnectorStats):
        def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
            self.data["bytes"] += other.data["bytes"]
            return self

    given = [(None, Bytes({"bytes": n}), None, None) for n in (1, 2, 4)]
    assert steps(scheduler, *given).kv_connector_stats == {"bytes": 7}


def test_what_was_reported_is_not_reported_again(scheduler: Any) -> None:
    step = (drafted(1, 1), None, None, None)
    assert steps(scheduler, step, step).spec_decoding_stats.num_drafts == 2
    scheduler._last_stats_time = 0.0
    assert scheduler.make_stats().spec_decoding_stats is None


def test_statistics_that_cannot_be_added_cost_themselves_alone(scheduler: Any) -> None:
    later = drafted(1, 1)
    given = [(SimpleNamespace(), None, None, None), (later, None, None, None)]
    reported = steps(scheduler, *given)
    assert reported.spec_decoding_stats is later
    place = "counting in the steps that were left out"
    assert internal_errors.errors.counts() == {place: 1}
