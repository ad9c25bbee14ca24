"""The pages that show the kit's dashboards with data: what is drawn where, of what was answered."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from testbed.kit.boards import Window, shown, stack
from testbed.kit.page import Drawing, page
from testbed.prometheus import Element, Track
from vllm_omni_metrics_plugin.kit.panels import Dashboard, Form, Panel, Row, Target

WINDOW = Window(1000.0, 1010.0)
TIMES = [1000.0, 1002.0, 1004.0, 1006.0, 1008.0, 1010.0]
DRAWING = Drawing("draw();", ".drawn {}")


class Answers:
    """Stands in for Prometheus: the same elements to each query, at the time of each step."""

    def __init__(self, *elements: tuple[dict[str, str], float]) -> None:
        self._elements = elements
        self.asked: list[tuple[str, Any]] = []

    def ask(self, query: str, at: float | None = None) -> list[Element]:
        self.asked.append((query, at))
        return [Element(labels, value, at or 0.0) for labels, value in self._elements]

    def ask_range(self, query: str, start: float, end: float, step: float) -> list[Track]:
        self.asked.append((query, (start, end, step)))
        return [Track(labels, {start: value, end: 2 * value}) for labels, value in self._elements]


def board(*forms: Form, legend: str = "{{stage}}", unit: str = "s", **more: Any) -> Dashboard:
    """Of one panel for each form."""
    panels = tuple(
        Panel(
            f"a {form} <b>",
            unit,
            "audio_rtf",
            (Target("rate(x[$__rate_interval])", legend),),
            form,
            **more,
        )
        for form in forms
    )
    return Dashboard("one", "A & B", "What it is.", (Row("first", panels), Row("second", panels)))


def panel_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["panels"][1]
    return found


def chart(form: Form, *elements: tuple[dict[str, str], float]) -> dict[str, Any]:
    return panel_of(shown(board(form), Answers(*elements), WINDOW))


# What is asked


def test_charts_are_asked_for_the_window_and_numbers_for_its_end() -> None:
    answers = Answers(({}, 1.0))
    shown(board("lines", "number"), answers, WINDOW)
    assert answers.asked[:2] == [("rate(x[15s])", (1000.0, 1010.0, 2.0)), ("rate(x[15s])", 1010.0)]


def test_variable_that_is_not_known_is_not_left_in_a_query() -> None:
    unknown = Panel("a", "s", "audio_rtf", (Target('x{a="$unknown"}', ""),))
    with pytest.raises(KeyError, match="unknown"):
        shown(Dashboard("one", "A", "B", (Row("r", (unknown,)),)), Answers(), WINDOW)


# What is drawn


def test_panels_are_where_grafana_places_them() -> None:
    panels = shown(board("lines", "lines", "lines", "lines"), Answers(), WINDOW)["panels"]
    assert [(p["form"], p["x"], p["y"], p["w"], p["h"]) for p in panels[:6]] == [
        ("row", 0, 0, 24, 1),
        ("chart", 0, 1, 8, 8),
        ("chart", 8, 1, 8, 8),
        ("chart", 16, 1, 8, 8),
        ("chart", 0, 9, 8, 8),
        ("row", 0, 17, 24, 1),
    ]


def test_values_stand_at_the_times_that_they_are_of() -> None:
    content = shown(board("lines"), Answers(({"stage": "1"}, 0.5)), WINDOW)
    assert content["times"] == TIMES
    assert panel_of(content)["series"] == [
        {"name": "1", "values": [0.5, None, None, None, None, 1.0]}
    ]


def test_window_of_a_whole_number_of_steps_ends_with_the_last() -> None:
    window = Window(1764112000.1, 1764112000.1 + 0.3, 0.1)
    assert len(window.times) == 4


def test_areas_lie_on_top_of_each_other_and_keep_their_values() -> None:
    first, second = chart("stacked", ({"stage": "0"}, 1.0), ({"stage": "1"}, 3.0))["series"]
    assert first["values"][0] == first["tops"][0] == 1.0
    assert (second["values"][0], second["tops"][0], second["tops"][-1]) == (3.0, 4.0, 8.0)
    assert second["tops"][1] is None


@pytest.mark.parametrize(
    ("rows", "tops"),
    [
        ([[1, None], [2, None]], [[1, None], [3, None]]),
        ([[1, 1], [None, 2]], [[1, 1], [1, 3]]),
        ([], []),
    ],
)
def test_what_is_not_there_adds_nothing_to_a_stack(
    rows: list[Sequence[float | None]], tops: list[list[float | None]]
) -> None:
    assert list(stack(rows)) == tops


def test_what_is_no_number_is_a_gap() -> None:
    (series,) = chart("lines", ({}, float("nan")))["series"]
    assert set(series["values"]) == {None}


def test_shares_of_a_whole_end_at_100_percent() -> None:
    content = shown(board("stacked", unit="percentunit"), Answers(({}, 0.5)), WINDOW)
    assert panel_of(content)["most"] == 1
    assert chart("stacked")["most"] is None


def test_table_has_its_labels_in_the_order_of_the_legend_and_its_value_by_its_name() -> None:
    of = board("table", legend="{{stage_name}} {{stage}}", column="replicas")
    answers = Answers(
        ({"stage": "1", "stage_name": "vocoder"}, 2.0), ({"stage": "0", "stage_name": "talker"}, 1)
    )
    table = panel_of(shown(of, answers, WINDOW))
    assert table["columns"] == ["stage_name", "stage", "replicas"]
    assert table["rows"] == [["talker", "0", 1.0], ["vocoder", "1", 2.0]]


def test_table_without_a_name_for_its_value_has_labels_alone() -> None:
    table = chart("table", ({"stage": "1"}, 1.0))
    assert (table["columns"], table["rows"]) == (["stage"], [["1"]])


def test_matrix_has_a_row_for_each_sender_and_a_column_for_each_receiver() -> None:
    matrix = chart(
        "matrix", ({"from": "0/0", "to": "1/0"}, 1.5), ({"from": "0/1", "to": "1/1"}, 2.5)
    )
    assert matrix["columns"] == ["from\\to", "1/0", "1/1"]
    assert matrix["rows"] == [["0/0", 1.5, ""], ["0/1", "", 2.5]]


# The page


def drawn(of: Dashboard, *elements: tuple[dict[str, str], float]) -> str:
    return page(shown(of, Answers(*elements), WINDOW), DRAWING)


@pytest.mark.parametrize("form", ["lines", "stacked", "number", "table", "matrix"])
def test_panel_without_data_says_that_there_is_no_traffic(form: Form) -> None:
    there = {"from": "0", "to": "1", "stage": "0"}
    assert drawn(board(form)).count(">No traffic</p>") == 2
    assert ">No traffic</p>" not in drawn(board(form), (there, 0.0))


def test_page_has_all_that_it_needs_within_it() -> None:
    text = drawn(board("lines"), ({}, 1.0))
    assert "draw();" in text
    assert ".drawn {}" in text
    assert re.findall(r'(?:src|href)="|url\(|@import', text) == []


def test_data_of_a_page_is_what_was_shown_whatever_is_in_it() -> None:
    hostile = {"stage": "</script><script>alert(1)</script>"}
    content = shown(board("lines", "table"), Answers((hostile, 1.0)), WINDOW)
    text = page(content, DRAWING)
    (data,) = re.findall(r'<script type="application/json" id="board">(.*?)</script>', text)
    assert json.loads(data) == content
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_texts_are_no_markup() -> None:
    text = drawn(board("lines"), ({}, 1.0))
    assert "<h1>A &amp; B</h1>" in text
    assert "a lines &lt;b&gt;</h3>" in text


def test_panel_stands_at_its_place_of_the_grid() -> None:
    text = drawn(board("lines", "number"), ({}, 1.0))
    assert '"chart" style="grid-column: 1 / span 8; grid-row: 2 / span 8"' in text
    assert '"number" style="grid-column: 9 / span 8; grid-row: 2 / span 8"' in text


def test_number_has_its_unit_and_a_name_where_there_are_several() -> None:
    one = drawn(board("number"), ({"stage": "7"}, 0.25))
    assert '<p><b data-unit="s" data-value="0.25"></b></p>' in one
    two = drawn(board("number"), ({"stage": "7"}, 0.25), ({"stage": "8"}, 0.5))
    assert '<p><b data-unit="s" data-value="0.5"></b><small>8</small></p>' in two


def test_page_says_of_when_it_is() -> None:
    assert "1970-01-01 00:16:40 to 00:16:50 UTC" in drawn(board("lines"))
