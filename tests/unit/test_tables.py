"""Tables for terminals and in Markdown: whatever a cell holds, it stays in its place."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vllm_omni_metrics_plugin.tables import aligned, markdown


def cells(line: str) -> list[str]:
    """As GitHub parts them: a backslash takes what follows with it, and a pipe ends a cell."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [cell.strip() for cell in re.findall(r"((?:\\.|[^|\\]|\\$)*)\|", line[1:])]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("stop|length", r"stop\|length"),
        (r"stop\|length", r"stop\|length"),
        (r"C:\\|", r"C:\\\|"),
        ("two\nlines", "two lines"),
        ("two\r\nlines", "two lines"),
        ("", ""),
    ],
)
def test_cell_cannot_break_its_table(cell: str, shown: str) -> None:
    assert markdown(("a", "b"), [(cell, "x")]).splitlines()[2] == f"| {shown} | x |"


@given(some.lists(some.tuples(*[some.text(alphabet="ab|\\\n\r\v\x85\u2028 ")] * 3), max_size=4))
def test_markdown_has_a_line_for_each_row_and_a_cell_for_each_column(
    rows: list[tuple[str, str, str]],
) -> None:
    lines = markdown(("a", "b", "c"), rows).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows) + 2
    assert {len(cells(line)) for line in lines} == {3}


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    assert aligned(("A", "NUMBER"), [("long", "1"), ("b", "22")], right=(1,)).splitlines() == [
        "A     NUMBER",
        "long       1",
        "b         22",
    ]


def test_line_feed_in_an_aligned_cell_makes_no_line() -> None:
    assert aligned(("A", "B"), [("one\ntwo", "c")]).splitlines()[1] == "one two  c"


def test_last_column_is_wrapped_where_the_width_is_little() -> None:
    text = aligned(("A", "B"), [("name", "words that go on and on and on and on")], width=30)
    assert text.splitlines() == [
        "A     B",
        "name  words that go on and on",
        "      and on and on",
    ]


def test_width_that_is_enough_changes_nothing() -> None:
    rows = [("name", "a few words")]
    assert aligned(("A", "B"), rows, width=80) == aligned(("A", "B"), rows)


def test_table_without_rows_is_its_header() -> None:
    assert aligned(("A", "B"), [], width=80) == "A  B"
