"""The bench's comparison of servers: kinds against each other, and the same against itself."""

from __future__ import annotations

import pytest

from testbed.bench import servers

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
