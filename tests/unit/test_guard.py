"""Families of hook plugins are held at a number of series, and ours have theirs by construction."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase

from tests.unit.feed import Feed
from tests.unit.test_exposition import OBJECTIVES, traffic
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus import Guard
from vllm_omni_metrics_plugin.exporters.prometheus.guard import MOST_SERIES, OVERFLOW
from vllm_omni_metrics_plugin.hooks import HookRegistry
from vllm_omni_metrics_plugin.hooks.loading import load_installed
from vllm_omni_metrics_plugin.settings import Settings

FAR_TOO_MANY = MOST_SERIES + 500
USES: dict[type[MetricWrapperBase], Callable[[Any], None]] = {
    Counter: lambda child: child.inc(),
    Gauge: lambda child: child.set(1),
    Histogram: lambda child: child.observe(1),
    Summary: lambda child: child.observe(1),
}


@pytest.fixture
def shown() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def guard(shown: CollectorRegistry) -> Guard:
    return Guard(shown)


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


@pytest.mark.parametrize("kind", USES)
def test_family_is_held_and_what_is_too_much_goes_to_one_series(
    shown: CollectorRegistry, guard: Guard, kind: type[MetricWrapperBase], log: Any
) -> None:
    with guard.loading("mine"):
        family: Any = kind("mine", "-", ["stage", "request_id"], registry=shown)
    use = USES[kind]
    for number in range(FAR_TOO_MANY):
        use(family.labels(number % 2, f"r{number}"))
    per_child = series(shown) // len(family._metrics)
    assert series(shown) <= MOST_SERIES
    assert series(shown) > MOST_SERIES - 2 * per_child
    kept = len(family._metrics) - 1
    name = "mine_total" if kind is Counter else "mine"
    assert guard.counts() == {("mine", name, "request_id"): FAR_TOO_MANY - kept}
    [warning] = log.messages
    assert f"hook plugin 'mine': its family {name} has 2000 series" in warning
    assert warning.endswith("the label request_id")


def test_nothing_that_is_counted_is_lost(shown: CollectorRegistry, guard: Guard) -> None:
    with guard.loading("mine"):
        family = Counter("mine", "-", ["who"], registry=shown)
    for number in range(FAR_TOO_MANY):
        family.labels(number).inc()
        family.labels(who=0).inc()  # it has its series, and goes on
    kept = len(family._metrics) - 1
    assert shown.get_sample_value("mine_total", {"who": OVERFLOW}) == FAR_TOO_MANY - kept
    assert shown.get_sample_value("mine_total", {"who": "0"}) == FAR_TOO_MANY + 1


def test_series_that_are_removed_make_room(shown: CollectorRegistry, guard: Guard) -> None:
    with guard.loading("mine"):
        family = Gauge("mine", "-", ["who"], registry=shown)
    for number in range(FAR_TOO_MANY):
        family.labels(number).set(1)
        family.remove(number)
    family.labels("last").set(1)
    assert guard.counts() == {}


def test_wrong_labels_are_told_to_the_plugin_as_ever(
    shown: CollectorRegistry, guard: Guard
) -> None:
    with guard.loading("mine"):
        family = Gauge("mine", "-", ["a", "b"], registry=shown)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}),
        ((1, 2, 3), {}),
        ((), {"a": 1}),
        ((), {"a": 1, "c": 2}),
        ((1,), {"b": 2}),
        ((1, 2), {"a": 1, "b": 2}),
    ]
    for number in range(FAR_TOO_MANY):
        family.labels(number, 1)
    for values, named in wrong:
        with pytest.raises(ValueError, match=r"label count|label names|both \*args"):
            family.labels(*values, **named)
    assert family.labels(b="x", a="y") is family.labels("z", "z")


def test_threads_together_make_no_more_series_than_there_may_be(
    shown: CollectorRegistry, guard: Guard
) -> None:
    with guard.loading("mine"):
        family = Counter("mine", "-", ["who"], registry=shown)

    def count(whose: int) -> None:
        for number in range(FAR_TOO_MANY // 4):
            family.labels(f"{whose}-{number}").inc()

    threads = [threading.Thread(target=count, args=(whose,)) for whose in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each may be past the look at the number when another one makes the last.
    assert series(shown) <= MOST_SERIES + 2 * len(threads)


def test_counts_are_published_once(exposed: Any) -> None:
    exposed.join()
    whose = {"plugin": "mine", "family": "mine_total", "label": "who"}
    for count in (3, 3, 5):
        exposed.held[tuple(whose.values())] = count
        assert exposed.value("metrics_held_series_total", **whose) == count


def test_others_families_are_not_touched(shown: CollectorRegistry, guard: Guard) -> None:
    before = Counter("before", "-", ["who"], registry=shown)
    with guard.loading("mine"):
        engines = Counter("vllm:imported", "-", ["who"], registry=shown)
        natives = Counter("vllm_omni:imported", "-", ["who"], registry=shown)
        bare = Counter("bare", "-", registry=shown)
        states = Enum("states", "-", states=["on", "off"], registry=shown)
    after = Counter("after", "-", ["who"], registry=shown)
    for family in (before, engines, natives, bare, states, after):
        assert "labels" not in vars(family)


def test_families_of_an_installed_plugin_are_guarded_under_its_name(
    registry: HookRegistry,
    shown: CollectorRegistry,
    guard: Guard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Module(ModuleType):
        @property
        def plugin(self) -> object:
            Counter("installed", "-", ["who"], registry=shown)
            return ModuleType("empty")

    monkeypatch.setitem(sys.modules, "guarded_plugin", Module("guarded_plugin"))
    entry = EntryPoint("late_starts", "guarded_plugin:plugin", "group")
    monkeypatch.setattr("vllm_omni_metrics_plugin.hooks.sources.entry_points", lambda **_: [entry])
    load_installed(registry, Settings(), loading=guard.loading)
    family: Any = shown._names_to_collectors["installed_total"]
    for number in range(FAR_TOO_MANY):
        family.labels(number).inc()
    assert [plugin for plugin, _, _ in guard.counts()] == ["late_starts"]


def test_plugin_that_fails_to_load_fails_as_ever(guard: Guard) -> None:
    with pytest.raises(SystemExit), guard.loading("mine"):
        raise SystemExit


#: What limits the values of each label of ours; none is an id, a text or a number of a request.
BOUNDS = {
    "model_name": "the engines of the process",
    "stage": "the pipeline",
    "from_stage": "the pipeline",
    "to_stage": "the pipeline",
    "stage_name": "the pipeline",
    "stage_type": "the pipeline",
    "replica": "the replicas that join",
    "from_replica": "the replicas that join",
    "to_replica": "the replicas that join",
    "finished_reason": "the outcomes",
    "ending": "the endings",
    "state": "two states of a session",
    "outcome": "the outcomes of turns",
    "code": "the refusals in the catalogue",
    "fate": "the fates of audio",
    "anchor": "two moments of a request",
    "segment": "the segments of a path",
    "objective": "the objectives in the operator's file",
    "verdict": "the verdicts",
    "limit": "the limits in the operator's file",
    "connector_type": "the classes of connectors",
    "player": "three players at most",
    "operation": "sending and receiving",
    "reason": "what is written in the code, and the classes of exceptions",
    "patch": "the table of patches",
    "target": "the table of patches",
    "status": "what becomes of a patch",
    "family": "the catalogue, and the families of the hook plugins that are installed",
    "label": "the labels of those families",
    "place": "places in the code, 200 at most",
    "hook": "the hooks",
    "plugin": "the hook plugins that are installed",
}


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_something_bounds_every_label_of_ours(family: catalog.Family) -> None:
    assert set(family.labels) <= BOUNDS.keys()


def test_more_requests_make_no_more_series(
    expose: Callable[..., AbstractContextManager[Any]],
) -> None:
    with expose(objectives=OBJECTIVES) as exposed:
        feed = Feed(exposed.hooks)
        counts = []
        for round_ in range(3):
            for event in traffic():
                feed.event(renamed(event, round_))
            counts.append(series(exposed.registry))
    assert counts[0] == counts[1] == counts[2]


def renamed(event: Any, round_: int) -> Any:
    """The same event of another request, or the same request's other payload."""
    fields = ("request_id", "external_request_id", "key")
    changes = {name: f"{getattr(event, name)}-{round_}" for name in fields if hasattr(event, name)}
    return msgspec.structs.replace(event, **changes)
