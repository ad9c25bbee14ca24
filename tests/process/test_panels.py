"""The dashboards' panels as Prometheus computes them, over every family that there is.

The series are those of the recorded page of ``/metrics``, with traffic, without, and of a server
that lacks labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import prometheus
from testbed.paths import ROOT
from tests.operators_kit import Asked, Promtool, asked_by_panels, rules
from vllm_omni_metrics_plugin.kit.promql import ENGINE
from vllm_omni_metrics_plugin.scrape import Sample, parse

RECORDED = ROOT / "tests" / "unit" / "data" / "exposition.prom"
MINUTES = 15
PANELS = [*asked_by_panels()]
#: By variable, as "All" is filled in.
ALL = {"$__rate_interval": "5m"} | dict.fromkeys(
    ("$job", "$model_name", "$stage", "$replica"), ".*"
)
TARGET = {"job": "vllm-omni", "instance": "a:8000"}


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    try:
        return Promtool(tmp_path)
    except prometheus.UnavailableError as reason:
        pytest.skip(str(reason))


def samples() -> Iterator[Sample]:
    for sample in parse(RECORDED.read_text()):
        if not sample.name.endswith("_created"):
            yield sample
    for name, labels in ENGINE.items():
        yield Sample(name, dict.fromkeys(labels, "0"), 0.5, "gauge")


def series(grows: bool, lacking: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Gauges as they are; counters grow by what they have and 1 each minute, if they grow."""
    found: dict[str, str] = {}
    for name, labels, value, kind in samples():
        shown = {k: v for k, v in {**TARGET, **labels}.items() if k not in lacking}
        inside = ",".join(f'{label}="{text}"' for label, text in shown.items())
        step = value + 1 if grows and kind in ("counter", "histogram") else 0
        found[f"{name}{{{inside}}}"] = f"{value:g}+{step:g}x{MINUTES}"
    return [{"series": name, "values": values} for name, values in found.items()]


def filled(expression: str, values: dict[str, str] = ALL) -> str:
    return re.sub(r"\$\w+", lambda name: values[name.group()], expression)


def asked(query: Callable[[str], str], answers: dict[str, float]) -> list[dict[str, Any]]:
    """A question about each expression, of which the answer is a number."""
    return [
        {
            "expr": query(expression),
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": "{}", "value": answer}],
        }
        for expression, answer in answers.items()
    ]


def how_many(expression: str) -> str:
    return f"(count({expression}) or vector(0))"


def has_data(expression: str) -> str:
    return f"{how_many(expression)} > bool 0"


def not_a_number(expression: str) -> str:
    """How many elements are NaN, as that alone is not what it is."""
    return f"{how_many(expression)} - {how_many(f'({expression}) == ({expression})')}"


def zeros(panel: Asked) -> float:
    """1 if it says 0, rather than nothing, when nothing happens, as rates and gauges do."""
    return float(" / " not in panel.expression and "histogram_quantile" not in panel.expression)


EXPRESSIONS = {filled(panel.expression): panel for panel in PANELS}


def test_every_panel_has_data_with_traffic_and_none_is_not_a_number(promtool: Promtool) -> None:
    tests = asked(has_data, dict.fromkeys(EXPRESSIONS, 1))
    tests += asked(not_a_number, dict.fromkeys(EXPRESSIONS, 0))
    promtool.test({"interval": "1m", "input_series": series(True), "promql_expr_test": tests})


def test_panel_without_traffic_says_0_or_nothing_and_never_what_is_no_number(
    promtool: Promtool,
) -> None:
    tests = asked(not_a_number, dict.fromkeys(EXPRESSIONS, 0))
    tests += asked(has_data, {query: zeros(panel) for query, panel in EXPRESSIONS.items()})
    promtool.test({"interval": "1m", "input_series": series(False), "promql_expr_test": tests})


def test_all_shows_series_of_servers_that_lack_the_labels(promtool: Promtool) -> None:
    old = series(True, lacking=("stage", "replica", "to_replica"))
    tests = asked(has_data, dict.fromkeys(EXPRESSIONS, 1))
    promtool.test({"interval": "1m", "input_series": old, "promql_expr_test": tests})


@pytest.mark.parametrize("variable", ["$job", "$model_name", "$stage", "$replica"])
def test_variable_leaves_out_what_was_not_chosen(promtool: Promtool, variable: str) -> None:
    of_variable = {
        filled(panel.expression, {**ALL, variable: "another"}): 0.0
        for panel in PANELS
        if variable in panel.expression
    }
    assert of_variable
    tests = asked(has_data, of_variable)
    promtool.test({"interval": "1m", "input_series": series(True), "promql_expr_test": tests})


def test_recorded_ratios_are_numbers_and_are_not_there_without_traffic(promtool: Promtool) -> None:
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    ratios = {name: 0.0 if "busy" not in name else 1.0 for name in recorded}
    long = {"interval": "1m", "promql_expr_test": asked(has_data, dict.fromkeys(recorded, 1))}
    short = {"interval": "1m", "promql_expr_test": asked(has_data, ratios)}
    promtool.test({**long, "input_series": series(True)}, {**short, "input_series": series(False)})
