"""What the public dashboards read, as Prometheus computes it over the page of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import prometheus
from testbed.pages import dashboards
from testbed.pages.dashboards import Read
from tests.engines_page import Labels, Page, look, ours
from tests.operators_kit import Promtool

READS = dict.fromkeys(
    read
    for board in dashboards.dashboards()
    for query in board.queries
    if query.functions != ("label_values",)
    for read in query.reads
)


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    try:
        return Promtool(tmp_path)
    except prometheus.UnavailableError as reason:
        pytest.skip(str(reason))


def selector(read: Read, engine: str) -> str:
    """As Grafana asks, with these as its values of ``$engine``."""
    matchers = [f'{label}=~".+"' for label in sorted(read.filters - {"engine"})]
    if "engine" in read.filters:
        matchers.append(f'engine=~"{engine}"')
    return f"{read.sample}{{{','.join(matchers)}}}"


def lines(read: Read, engine: str) -> str:
    """How many lines a panel has of it."""
    left = "without (le)" if read.by is None else f"by ({', '.join(sorted(read.by - {'le'}))})"
    return f"count(count {left} ({selector(read, engine)}))"


def asked(expression: str, value: int) -> dict[str, Any]:
    expected = [{"labels": "{}", "value": value}] if value else []
    return {"expr": expression, "eval_time": "0m", "exp_samples": expected}


def questions(page: Page) -> Iterator[dict[str, Any]]:
    for read in READS:
        found = look(page, read)
        yield asked(lines(read, "()"), len(found.lines(read)))
        yield asked(f"count({selector(read, '0')})", len(found.with_a_number))


def series(name: str, labels: Labels) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}"


def test_series_that_each_query_reads_are_those_that_prometheus_finds(promtool: Promtool) -> None:
    """With ``All``, for which Grafana asks, and with an engine's number."""
    page = ours()
    scraped = [
        {"series": series(name, labels), "values": "1"}
        for name, several in page.items()
        for labels in several
        if not name.endswith("_created")
    ]
    tests = [*questions(page)]
    assert len(tests) > 200
    assert any(question["exp_samples"] == [] for question in tests)
    promtool.test({"interval": "1m", "input_series": scraped, "promql_expr_test": tests})
