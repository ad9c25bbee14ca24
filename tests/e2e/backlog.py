"""The backlog of a server whose queue runs empty, against the client that waits for it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from testbed.bench.drain import Ask, Drain, TooLateError, drain
from testbed.server import Server
from tests.e2e.conftest import is_idle, settled
from vllm_omni_metrics_plugin.scrape import Scrape

_STAGES = "vllm:omni_stage_backlog_seconds"
_MODELS = "vllm:omni_backlog_seconds"
_ATTEMPTS = 6


def assert_queue_takes_what_the_backlog_says(server: Server, asks: Sequence[Ask]) -> None:
    """Of some attempts one has to be right, as other programs take the processor now and then."""
    drain_or_none(server, asks)  # the server learns what such requests take
    ratios: list[float] = []
    while not any(0.5 < ratio < 2.0 for ratio in ratios):
        assert len(ratios) < _ATTEMPTS, f"predicted over real: {ratios}"
        seen = drain_or_none(server, asks)
        ratios.append(seen.ratio if seen is not None else 0.0)
        for _, page in seen.pages if seen is not None else ():
            assert_model_has_what_its_slowest_stage_has(page, server.model)
    print("predicted over real:", ratios)
    assert_nothing_is_left(settled(server, is_idle), server.model)


def drain_or_none(server: Server, asks: Sequence[Ask]) -> Drain | None:
    settled(server, is_idle)
    try:
        return drain(server.url, asks)
    except TooLateError:
        return None


def assert_model_has_what_its_slowest_stage_has(page: Scrape, model: str) -> None:
    left: dict[str, list[float]] = {}
    for sample in page.named(_STAGES):
        left.setdefault(sample.labels["stage"], []).append(sample.value)
    means = [statistics.fmean(replicas) for replicas in left.values()]
    [of_model] = page.named(_MODELS)
    assert of_model.labels == {"model_name": model}
    assert of_model.value >= 0.0
    assert abs(of_model.value - max(means)) < 1e-6, left


def assert_nothing_is_left(page: Scrape, model: str) -> None:
    def replicas(name: str) -> set[tuple[str, str]]:
        return {(of["stage"], of["replica"]) for of in page.label_sets(name)}

    assert_model_has_what_its_slowest_stage_has(page, model)
    assert replicas(_STAGES) == replicas("vllm:omni_stage_info")
    assert {sample.value for name in (_MODELS, _STAGES) for sample in page.named(name)} == {0.0}
