"""Our families beside the engine's own, in the registry that the server exposes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import RequestFinished
from vllm_omni_metrics_plugin.patches.process import installed_versions
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION

# The engine makes its families when its modules are imported, or later; it removes them by name.
ENGINES_OWN = "vllm:num_requests_running_of_this_test"


@pytest.fixture
def published(expose: Any) -> Iterator[Any]:
    """Our exporter in the default registry, with one request behind it."""
    with expose(publish_in=REGISTRY) as exposed:
        exposed.join()
        exposed.hooks.omni_request_finished(
            RequestFinished(
                request_id="a",
                model_name="tiny",
                outcome="stop",
                end_to_end_seconds=1.5,
                queue_seconds=0.5,
            )
        )
        yield exposed


@pytest.fixture
def engines_own() -> Iterator[Collector]:
    gauge = Gauge(ENGINES_OWN, "registered as the engine registers its own")
    yield gauge
    if gauge in REGISTRY._collector_to_names:
        REGISTRY.unregister(gauge)


def lines(prefix: str) -> list[str]:
    """What a scrape shows of the families with this prefix."""
    return [
        line
        for line in generate_latest(REGISTRY).decode().splitlines()
        if line.startswith(prefix) and "_created" not in line
    ]


def test_engines_clean_up_removes_its_families_and_keeps_ours(
    published: Any, engines_own: Collector
) -> None:
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    before = lines(catalog.PREFIX)
    assert f'{catalog.PREFIX}requests_success_total{{finished_reason="stop"' in "\n".join(before)
    assert lines(ENGINES_OWN) == [f"{ENGINES_OWN} 0.0"]

    unregister_vllm_metrics()
    assert lines(ENGINES_OWN) == []
    assert lines(catalog.PREFIX) == before

    Gauge(ENGINES_OWN, "the next logger registers it again")
    unregister_vllm_metrics()
    assert lines(ENGINES_OWN) == []
    assert lines(catalog.PREFIX) == before


def test_our_families_and_the_omni_engines_own_have_different_names(published: Any) -> None:
    import vllm_omni.metrics  # registers the engine's own families

    assert lines("vllm_omni:") or vllm_omni.metrics
    names = [family.name for family in REGISTRY.collect()]
    assert len(names) == len(set(names)), "a scraper refuses a family that is there twice"
    ours = {family.name.removesuffix("_total") for family in catalog.FAMILIES}
    assert ours <= {name.removesuffix("_total") for name in names}


@pytest.mark.parametrize("name", ["vllm:of_a_hook_plugin", "of_a_vllm_plugin", "late_starts"])
def test_engines_clean_up_takes_the_families_of_others_as_its_release_says(name: str) -> None:
    from vllm.v1.metrics.prometheus import unregister_vllm_metrics

    release = BY_VERSION[installed_versions()["vllm-omni"]]
    registered = set(REGISTRY._collector_to_names)
    family = Gauge(name, "made by a hook plugin")
    try:
        unregister_vllm_metrics()
        gone = family not in REGISTRY._collector_to_names
        assert gone == (re.search(release.unregistered, name) is not None)
    finally:
        for made in set(REGISTRY._collector_to_names) - registered:
            REGISTRY.unregister(made)
