"""The bench's comparison of servers: kinds against each other, and the same against itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from testbed.bench import servers, traces
from vllm_omni_metrics_plugin.exporters.otel import refusal

MEASURED = {"off": [1.0, 1.25], "on": [1.1, 1.3], "native": [1.8]}


def test_kinds_are_compared_by_the_mean_of_their_servers_and_servers_within_each_kind() -> None:
    figures = {name: value for name, value, *_ in servers.compared("serve", MEASURED, "")}
    assert figures == {
        "serve_on_vs_off": pytest.approx(1.2 / 1.125),
        "serve_off_vs_off": pytest.approx(0.8),
        "serve_on_vs_on": pytest.approx(1.1 / 1.3),
        "serve_native_vs_off": pytest.approx(1.6),
    }


@pytest.mark.parametrize(
    ("off", "on", "spread"),
    [([1.0, 1.25], [1.0, 1.0], "0.200"), ([1.0, 1.0], [1.3, 1.0], "0.300")],
)
def test_budget_is_what_two_servers_of_one_kind_differ_by(
    off: list[float], on: list[float], spread: str
) -> None:
    found = servers.compared("serve", {"off": off, "on": on, "native": [1.0]}, "")
    budgets = {name: budget for name, _, budget, _ in found}
    assert budgets.pop("serve_on_vs_off") == f"1 ± {spread}"
    assert set(budgets.values()) == {"-"}


def test_there_are_two_servers_of_each_kind_that_is_compared_with_itself() -> None:
    assert {kind: servers.KINDS[kind].servers for kind in servers.KINDS} == {
        "on": 2,
        "off": 2,
        "native": 1,
    }


def test_traces_are_compared_with_none_at_both_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, servers.Kind] = {}

    def measure(
        pipeline: str, kinds: Mapping[str, servers.Kind], ask: object, cpu: str, rounds: int
    ) -> dict[str, dict[str, list[float]]]:
        asked.update(kinds)
        return {cpu: {"off": [1.0, 1.25], "all": [1.35], "hundredth": [1.125]}, "serve": {}}

    monkeypatch.setattr(servers, "measure", measure)
    figures = {name: value for name, value, *_ in traces.figures(rounds=3)}
    assert figures == {
        "traces_cpu_all_vs_off": pytest.approx(1.2),
        "traces_cpu_hundredth_vs_off": pytest.approx(1.0),
        "traces_cpu_off_vs_off": pytest.approx(0.8),
    }
    ratio = "OTEL_TRACES_SAMPLER_ARG"
    assert {kind: asked[kind].env.get(ratio) for kind in asked} == {
        "off": None,
        "all": "1",
        "hundredth": "0.01",
    }
    assert refusal(asked["all"].env, "TRACES") is None


def test_every_kind_of_server_is_measured_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle:
        def __init__(self, pipeline: str, *, env: object, args: object) -> None:
            self.url = str(env)

        def __enter__(self) -> Idle:
            return self

        def __exit__(self, *_: object) -> None: ...

        def cpu_seconds(self) -> float:
            return 2.0

    monkeypatch.setattr(servers, "Server", Idle)
    monkeypatch.setattr(servers, "_AFTERWARDS_SECONDS", 0.0)
    kinds = {"a": servers.Kind(2, env={"x": "a"}), "b": servers.Kind(1, env={"x": "b"})}
    calls: list[str] = []

    def ask(url: str) -> dict[str, float]:
        calls.append(url)
        return {"serve": 0.5}

    found = servers.measure("tts", kinds, ask, "cpu", rounds=4)
    assert found == {
        "serve": {"a": [0.5, 0.5], "b": [0.5]},
        "cpu": {"a": [0.0, 0.0], "b": [0.0]},
    }
    warm_ups = 3
    assert len(calls) == 3 * (4 + warm_ups)
