"""Two replicas in a simulation: who is asked next by what is left waits less than by how many."""

from __future__ import annotations

import statistics

import pytest

from testbed.bench import routing


@pytest.mark.parametrize("seed", range(4))
def test_least_backlog_beats_least_requests(seed: int) -> None:
    costs = routing.recorded()
    by_requests, by_backlog = (
        routing.latencies(rule, costs, seed) for rule in (routing.by_requests, routing.by_backlog)
    )
    assert len(by_requests) == len(by_backlog)
    for figure in (statistics.fmean, lambda seconds: statistics.quantiles(seconds, n=20)[-1]):
        assert figure(by_backlog) < 0.98 * figure(by_requests)
