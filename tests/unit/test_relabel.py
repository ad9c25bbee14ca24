"""Metric classes that replace the flat engine label by stage and replica."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from vllm_omni_metrics_plugin.patches.engine_families.relabel import (
    Engines,
    UnknownEngineError,
    relabelled,
)

MEMBERS = {0: ("0", "0"), 1: ("1", "0"), 2: ("1", "1")}


@pytest.fixture
def engines() -> Engines:
    known = Engines()
    for engine, (stage, replica) in MEMBERS.items():
        known.add(engine, stage, replica)
    return known


def family(engines: Engines, *labelnames: str, kind: int = 1) -> tuple[Any, CollectorRegistry]:
    registry = CollectorRegistry()
    made = relabelled(engines)[kind]("requests", "-", labelnames=labelnames, registry=registry)
    return made, registry


def shown(registry: CollectorRegistry) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sample.labels.items()): sample.value
        for collected in registry.collect()
        for sample in collected.samples
        if sample.name == "requests_total"
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("engine",), ("stage", "replica")),
        (("model_name", "engine"), ("model_name", "stage", "replica")),
        (("engine", "reason"), ("stage", "replica", "reason")),
        (("model_name", "engine", "reason"), ("model_name", "stage", "replica", "reason")),
        (("model_name",), ("model_name",)),
    ],
)
@pytest.mark.parametrize("container", [list, tuple, lambda names: dict.fromkeys(names).keys()])
def test_engine_is_replaced_in_place(
    engines: Engines,
    before: tuple[str, ...],
    after: tuple[str, ...],
    container: Callable[[Any], Any],
) -> None:
    for kind in relabelled(engines):
        made = kind("m", "-", labelnames=container(before), registry=CollectorRegistry())
        assert made._labelnames == after


@pytest.mark.parametrize(
    "give",
    [
        lambda f: f.labels("m", 2, "stop"),
        lambda f: f.labels("m", "2", "stop"),
        lambda f: f.labels("m", "1", "1", "stop"),
        lambda f: f.labels(model_name="m", engine=2, reason="stop"),
        lambda f: f.labels(model_name="m", engine="2", reason="stop"),
        lambda f: f.labels(**{"reason": "stop", "engine": "2", "model_name": "m"}),
        lambda f: f.labels(model_name="m", stage="1", replica="1", reason="stop"),
    ],
)
def test_every_form_of_labels_reaches_the_same_child(
    engines: Engines, give: Callable[[Any], Any]
) -> None:
    made, registry = family(engines, "model_name", "engine", "reason")
    give(made).inc(3)
    expected = {"model_name": "m", "stage": "1", "replica": "1", "reason": "stop"}
    assert shown(registry) == {tuple(expected.items()): 3}


def test_duration_below_zero_is_no_sample(engines: Engines) -> None:
    registry = CollectorRegistry()
    made = relabelled(engines)[2]
    of = {"stage": "0", "replica": "0"}
    for name, count in (("queue_seconds", 2), ("tokens", 3)):
        histogram = made(name, "-", labelnames=["engine"], registry=registry)
        for amount in (-29_646.0, 0.0, 1.5):
            histogram.labels(0).observe(amount)
        assert registry.get_sample_value(f"{name}_count", of) == count
    assert registry.get_sample_value("queue_seconds_sum", of) == 1.5


@pytest.mark.parametrize("engine", [3, "3", "x", None, -1])
def test_unknown_engine_is_an_error_that_names_it(engines: Engines, engine: Any) -> None:
    made, registry = family(engines, "model_name", "engine")
    by_place = functools.partial(made.labels, "m", engine)
    by_name = functools.partial(made.labels, model_name="m", engine=engine)
    for give in (by_place, by_name):
        with pytest.raises(UnknownEngineError, match=repr(engine)):
            give()
    assert shown(registry) == {}


def test_wrong_number_of_labels_is_upstreams_error(engines: Engines) -> None:
    made, _ = family(engines, "model_name", "engine")
    with pytest.raises(ValueError, match="label count"):
        made.labels("m", "1", "1", "more")


def test_two_sets_of_engines_do_not_see_each_other() -> None:
    first, second = Engines(), Engines()
    first.add(0, "0", "0")
    second.add(0, "7", "3")
    for known, stage in ((first, "0"), (second, "7")):
        made, registry = family(known, "engine")
        made.labels(0).inc()
        assert [dict(labels)["stage"] for labels in shown(registry)] == [stage]


def test_number_that_stands_for_another_replica_is_refused(engines: Engines) -> None:
    engines.add(1, "1", "0")
    with pytest.raises(ValueError, match="engine 1 is stage 1 replica 0"):
        engines.add(1, "1", "1")


def test_late_numbers_of_a_replica_that_left_are_kept_and_not_shown(engines: Engines) -> None:
    made, registry = family(engines, "engine", "reason")
    made.labels(1, "stop").inc()
    engines.withdraw("1", "0")
    made.labels(1, "stop").inc()
    made.labels("1", "length").inc()
    assert shown(registry) == {}
    engines.restore("1", "0")
    assert {dict(labels)["reason"]: n for labels, n in shown(registry).items()} == {
        "stop": 2,
        "length": 1,
    }


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["count", "bound", "withdraw", "restore"]),
        st.sampled_from(sorted(MEMBERS)),
        st.sampled_from(["stop", "length", "abort"]),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_no_sequence_of_leaving_and_returning_loses_a_count(
    steps: list[tuple[str, int, str]],
) -> None:
    known = Engines()
    for engine, (stage, replica) in MEMBERS.items():
        known.add(engine, stage, replica)
    made, registry = family(known, "engine", "reason")
    bound = {engine: made.labels(engine, "stop") for engine in MEMBERS}
    counts = {(engine, "stop"): 0 for engine in MEMBERS}
    gone: set[int] = set()

    for step, engine, reason in steps:
        if step == "count":
            made.labels(engine, reason).inc()
            counts[engine, reason] = counts.get((engine, reason), 0) + 1
        elif step == "bound":
            bound[engine].inc()
            counts[engine, "stop"] += 1
        elif step == "withdraw":
            known.withdraw(*MEMBERS[engine])
            gone.add(engine)
        else:
            known.restore(*MEMBERS[engine])
            gone.discard(engine)

    assert shown(registry) == {
        (("stage", MEMBERS[engine][0]), ("replica", MEMBERS[engine][1]), ("reason", reason)): count
        for (engine, reason), count in counts.items()
        if engine not in gone
    }
