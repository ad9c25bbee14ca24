"""Leaving out of /metrics what the engine publishes itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from vllm_omni_metrics_plugin import internal_errors, settings
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.hooks import HookRegistry, ReplicaJoined
from vllm_omni_metrics_plugin.testing import make_event


class Page:
    """A registry in which an exporter publishes, and the engine beside it."""

    def __init__(self, registry: HookRegistry, native: bool) -> None:
        self.shown_in = CollectorRegistry()
        self.native = Gauge("vllm_omni:num_requests_running", ".", registry=self.shown_in)
        self.vllms = Counter("vllm:prompt_tokens", ".", registry=self.shown_in)
        self.exporter = PrometheusExporter({}, registry.stats, self.shown_in, native=native)
        registry.register(self.exporter, "prometheus")
        registry.hooks.omni_replica_joined(make_event(ReplicaJoined))

    def names(self) -> set[str]:
        lines = generate_latest(self.shown_in).decode().splitlines()
        return {line.split()[2] for line in lines if line.startswith("# TYPE")}


def test_engines_own_families_are_there_unless_they_are_left_out(registry: HookRegistry) -> None:
    assert "vllm_omni:num_requests_running" in Page(registry, native=True).names()


def test_engines_own_families_are_left_out_and_all_others_stay(registry: HookRegistry) -> None:
    page = Page(registry, native=False)
    names = page.names()
    assert [name for name in names if name.startswith("vllm_omni:")] == []
    assert {"vllm:prompt_tokens_total", "vllm:omni_stage_info"} <= names
    page.native.set(3)  # the engine goes on as ever


def test_families_of_a_module_that_comes_later_are_left_out_from_the_next_scrape(
    registry: HookRegistry,
) -> None:
    page = Page(registry, native=False)
    page.names()
    Counter("vllm_omni:realtime_vad_errors", ".", registry=page.shown_in)
    page.names()
    assert [name for name in page.names() if name.startswith("vllm_omni:")] == []


def test_registry_that_fails_costs_neither_a_scrape_nor_the_replica(
    registry: HookRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(CollectorRegistry, "unregister", fails)
    assert "vllm:omni_stage_info" in Page(registry, native=False).names()
    assert internal_errors.errors.counts()["leaving the engine's families out"] > 0


@pytest.mark.parametrize(
    ("value", "native"), [(None, True), ("", True), ("1", True), ("0", False), ("off", False)]
)
def test_switch_is_on_unless_it_is_switched_off(value: str | None, native: bool) -> None:
    environ = {} if value is None else {"VLLM_OMNI_METRICS_NATIVE": value}
    assert settings.parse(environ).native is native


def test_switch_with_a_bad_value_is_on_and_said() -> None:
    said: list[str] = []
    parsed = settings.parse({"VLLM_OMNI_METRICS_NATIVE": "maybe"}, said.append)
    assert parsed == dataclasses.replace(settings.Settings(), native=True)
    assert ["the default, on," in message for message in said] == [True]
