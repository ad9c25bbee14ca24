"""The page that is written from kept lines is the one that prometheus_client writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    disable_created_metrics,
    enable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from tests.openmetrics import strictly
from tests.unit.conftest import Clock
from tests.unit.feed import Feed
from tests.unit.test_exposition import OBJECTIVES, traffic
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exposition import page as written
from vllm_omni_metrics_plugin.exposition.page import Page
from vllm_omni_metrics_plugin.patches.engine_families.relabel import Engines, relabelled

ODD = ["", "plain", 'a "quoted" one', "back\\slash", "two\nlines", "é and 語", "100 %s %%", "{a=}"]
VALUES = [0.0, -0.0, 1.0, 0.1, 1e6, 123456789.0, 1e300, 5e-324, -2.5, math.inf, -math.inf, math.nan]
KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram, "summary": Summary}


def text(page: Page) -> bytes:
    return b"".join(page.text())


def openmetrics(page: Page) -> bytes:
    return b"".join(page.openmetrics())


def assert_as_prometheus_client_writes(page: Page, registry: CollectorRegistry) -> None:
    assert text(page).decode() == generate_latest(registry).decode()
    # Its own, where names are left as they are.
    assert openmetrics(page).decode() == written._keeps_names(registry).decode()


def use(kind: str, child: Any, value: float) -> None:
    """Something that can be done with a child of this kind."""
    if kind == "counter":
        child.inc(abs(value))
    elif kind == "gauge":
        child.set(value)
    else:
        child.observe(value)


@st.composite
def families(draw: st.DrawFn) -> list[tuple[str, str, list[str], str, tuple[float, ...]]]:
    names = draw(
        st.lists(
            st.from_regex(r"[a-z_:][a-z0-9_:]{0,8}x", fullmatch=True),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    return [
        (
            draw(st.sampled_from(sorted(KINDS))),
            f"family{number}:{name}",
            draw(st.lists(st.sampled_from(["stage", "zone", "k", "le_not"]), unique=True)),
            draw(st.sampled_from(ODD)),
            draw(st.sampled_from([(1.0, 2.0), (-1.0, 0.5, 3.0), (0.0, 1e6, 1e9)])),
        )
        for number, name in enumerate(names)
    ]


@given(families(), st.data())
def test_every_page_is_the_same_to_the_last_byte(
    described: list[tuple[str, str, list[str], str, tuple[float, ...]]], data: st.DataObject
) -> None:
    registry = CollectorRegistry()
    made = []
    for kind, name, labels, help_text, bounds in described:
        more: dict[str, Any] = {"buckets": bounds} if kind == "histogram" else {}
        made.append((kind, labels, KINDS[kind](name, help_text, labels, registry=registry, **more)))
    page = Page(registry)
    for _ in range(data.draw(st.integers(1, 3))):
        for kind, labels, family in made:
            for _ in range(data.draw(st.integers(0, 3))):
                values = [data.draw(st.sampled_from(ODD)) for _ in labels]
                child = family.labels(*values) if labels else family
                use(kind, child, data.draw(st.sampled_from(VALUES) | st.floats()))
        assert_as_prometheus_client_writes(page, registry)


def test_every_family_of_the_catalogue_is_written_alike(
    expose: Callable[..., AbstractContextManager[Any]], clock: Clock
) -> None:
    with expose(objectives=OBJECTIVES) as exposed:
        feed = Feed(exposed.hooks)
        page = Page(exposed.registry)
        for number, event in enumerate(traffic()):
            feed.event(event)
            if number % 40 == 0:
                assert text(page) == generate_latest(exposed.registry)
        assert_as_prometheus_client_writes(page, exposed.registry)
        samples = strictly(openmetrics(page))
    names = {sample.name for sample in samples}
    for family in catalog.FAMILIES:
        if family.is_own:
            continue  # which of these there are, depends on what failed
        assert not names.isdisjoint({family.name, f"{family.name}_count"}), family.name


def test_relabelled_families_are_written_alike_when_a_replica_goes_and_comes() -> None:
    registry = CollectorRegistry()
    engines = Engines()
    engines.add(0, "0", "0")
    engines.add(1, "1", "0")
    gauge, counter, histogram = relabelled(engines)
    of: dict[str, Any] = {"labelnames": ["model_name", "engine"], "registry": registry}
    running = gauge("vllm:num_requests_running", "-", multiprocess_mode="mostrecent", **of)
    tokens = counter("vllm:generation_tokens", "-", **of)
    latency = histogram("vllm:e2e_request_latency_seconds", "-", **of)
    page = Page(registry)
    for engine in (0, 1):
        running.labels("m", engine).set(3)
        tokens.labels("m", engine).inc(5)
        latency.labels("m", engine).observe(0.2)
    assert_as_prometheus_client_writes(page, registry)
    engines.withdraw("1", "0")
    assert_as_prometheus_client_writes(page, registry)
    engines.restore("1", "0")
    tokens.labels("m", 1).inc()
    assert_as_prometheus_client_writes(page, registry)
    assert {lines is not None for lines in page._lines.values()} == {True}


def test_series_that_go_and_come_back_begin_anew() -> None:
    registry = CollectorRegistry()
    family = Counter("vllm:c", "-", ["k"], registry=registry)
    page = Page(registry)
    family.labels("a").inc(3)
    family.labels("b").inc(4)
    assert_as_prometheus_client_writes(page, registry)
    family.remove("a")
    assert_as_prometheus_client_writes(page, registry)
    assert len(page._lines[family]._by_child) == 1  # type: ignore[union-attr]
    family.labels("a").inc(1)
    family.labels("b").reset()
    assert_as_prometheus_client_writes(page, registry)
    family.clear()
    assert_as_prometheus_client_writes(page, registry)
    registry.unregister(family)
    assert text(page) == b""
    assert page._lines == {}


def test_values_that_functions_compute_are_asked_for() -> None:
    registry = CollectorRegistry()
    family = Gauge("vllm:g", "-", ["k"], registry=registry)
    page = Page(registry)
    family.labels("a").set(1)
    assert_as_prometheus_client_writes(page, registry)
    numbers = [7.0]
    family.labels("b").set_function(lambda: numbers[0])
    assert_as_prometheus_client_writes(page, registry)
    numbers[0] = 8.0
    assert b'vllm:g{k="b"} 8.0' in text(page)
    assert_as_prometheus_client_writes(page, registry)


def test_other_collectors_are_written_by_prometheus_client() -> None:
    class Own:
        def collect(self) -> Iterable[Metric]:
            family = GaugeMetricFamily("own:family", "-", labels=["k"])
            family.add_metric(["v"], 2, timestamp=123.456)
            yield family

    class Changed(Gauge):
        def _child_samples(self) -> Any:
            return [sample._replace(value=41.0) for sample in super()._child_samples()]

    registry = CollectorRegistry(target_info={"where": "here"})
    registry.register(Own())
    Info("vllm:i", "-", registry=registry).info({"version": "1"})
    Enum("own_e", "-", states=["on", "off"], registry=registry).state("off")
    Changed("vllm:changed", "-", registry=registry)
    page = Page(registry)
    assert_as_prometheus_client_writes(page, registry)
    assert b"vllm:changed 41.0" in text(page)
    assert "own:family" in {sample.name for sample in strictly(openmetrics(page))}


@pytest.mark.parametrize("name", ["with.dots", "vllm:plain"])
def test_names_that_need_quotes_are_written_as_prometheus_client_does(name: str) -> None:
    registry = CollectorRegistry()
    try:
        Gauge(name, "-", ["a"], registry=registry).labels("x").set(1)
    except ValueError:
        pytest.skip("this prometheus_client takes no such name")
    page = Page(registry)
    assert text(page) == generate_latest(registry)
    [sample] = strictly(openmetrics(page))
    assert sample.name == name.replace(".", "_")


def test_times_of_creation_are_left_out_where_they_are_switched_off() -> None:
    registry = CollectorRegistry()
    Counter("vllm:c", "-", registry=registry).inc()
    Histogram("vllm:h", "-", registry=registry).observe(1)
    page = Page(registry)
    assert b"_created" in text(page)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        assert_as_prometheus_client_writes(page, registry)
        assert b"_created" not in text(page)
    finally:
        enable_created_metrics()  # type: ignore[no-untyped-call]
    assert_as_prometheus_client_writes(page, registry)


def test_exemplars_are_in_openmetrics_alone() -> None:
    registry = CollectorRegistry()
    seconds = Histogram("vllm:h", "-", ["k"], buckets=(1.0, 2.0), registry=registry)
    total = Counter("vllm:c", "-", ["k"], registry=registry)
    page = Page(registry)
    seconds.labels("v").observe(1.5)
    assert_as_prometheus_client_writes(page, registry)
    seconds.labels("v").observe(1.5, {"trace_id": "4bf92f", "span_id": "a"})
    total.labels("v").inc(2, {"trace_id": "4bf92f"})
    assert_as_prometheus_client_writes(page, registry)
    assert b"trace_id" not in text(page)
    found = {
        sample.name: sample.exemplar for sample in strictly(openmetrics(page)) if sample.exemplar
    }
    assert found.keys() == {"vllm:h_bucket", "vllm:c_total"}
    assert found["vllm:h_bucket"].labels == {"trace_id": "4bf92f", "span_id": "a"}
    assert found["vllm:h_bucket"].value == 1.5
    seconds.labels('"odd"\n').observe(1.5, {"trace_id": 'a"\n\\b'})
    assert_as_prometheus_client_writes(page, registry)


def test_units_are_in_openmetrics_alone() -> None:
    registry = CollectorRegistry()
    Gauge("vllm:g", "-", unit="seconds", registry=registry).set(1)
    page = Page(registry)
    assert_as_prometheus_client_writes(page, registry)
    assert b"# UNIT vllm:g_seconds seconds\n" in openmetrics(page)


def test_lines_are_kept_while_values_stand_still() -> None:
    registry = CollectorRegistry()
    family = Histogram("vllm:h", "-", ["k"], registry=registry)
    family.labels("a").observe(1)
    family.labels("b").observe(1)
    page = Page(registry)
    text(page)
    lines = page._lines[family]
    assert lines is not None
    first, second = (each.body for each in lines._by_child.values())
    family.labels("b").observe(2)
    text(page)
    now = [each.body for each in lines._by_child.values()]
    assert now[0] is first
    assert now[1] != second


@pytest.mark.parametrize("bounds", [(1.0, 2.0), (-1.0, 0.5)])
@pytest.mark.parametrize("value", ODD)
def test_odd_label_values_of_histograms_are_written_alike(
    value: str, bounds: tuple[float, ...]
) -> None:
    registry = CollectorRegistry()
    family = Histogram("vllm:h", value, ["k"], buckets=bounds, registry=registry)
    family.labels(value).observe(0.7)
    assert_as_prometheus_client_writes(Page(registry), registry)


def test_zero_with_a_sign_is_another_zero() -> None:
    registry = CollectorRegistry()
    family = Gauge("vllm:g", "-", registry=registry)
    page = Page(registry)
    for value in (0.0, -0.0, 0.0):
        family.set(value)
        assert_as_prometheus_client_writes(page, registry)


def test_long_page_comes_in_pieces() -> None:
    registry = CollectorRegistry()
    for number in range(40):
        family = Gauge(f"vllm:g{number}", "-", ["k"], registry=registry)
        for child in range(500):
            family.labels(child).set(child)
    page = Page(registry)
    assert len(page.text()) > 1, "nobody writes 20,000 lines in half a millisecond"
    assert_as_prometheus_client_writes(page, registry)
