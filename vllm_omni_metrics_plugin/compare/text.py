"""A comparison as people read it, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.compare.comparison import Interval, Row
from vllm_omni_metrics_plugin.compare.result import Measured
from vllm_omni_metrics_plugin.tables import aligned

_NO_VALUE = "-"


def table(rows: Sequence[Row]) -> str:
    """One line per figure, aligned, then what has to be said about some of them."""
    lines = []
    notes = []
    for row in rows:
        lines.append(
            (
                row.measured.name,
                _number(row.measured.value),
                _interval(row.server),
                _difference(row),
                row.verdict,
            )
        )
        notes += [f"{row.measured.name}: {note}" for note in notes_of(row)]
    header = ("FIGURE", "BENCH", "SERVER", "DIFFERENCE", "")
    figures = aligned(header, lines, right=(1, 2, 3))
    return "\n\n".join(filter(None, (figures, "\n".join(dict.fromkeys(notes)))))


def renamed(figures: Sequence[Measured]) -> str:
    """The bench alone, under the names of the server's families."""
    lines = [
        (measured.name, _number(measured.value), measured.figure.bench_formula)
        for measured in figures
        if measured.says_something
    ]
    return aligned(("FIGURE", "BENCH", "IN THE FILE"), lines)


def notes_of(row: Row) -> list[str]:
    """What makes the difference, where there is one to explain, and what is known to be missing."""
    figure = row.measured.figure
    notes = []
    if figure.is_another:
        notes.append(f"The server's number is {figure.server_formula}. {figure.why}")
    elif figure.why and row.verdict != "agree":
        notes.append(figure.why)
    notes += [
        f"the server could not measure {count:g} of them ({reason})"
        for reason, count in row.missing.items()
    ]
    return notes


def as_json(row: Row) -> dict[str, Any]:
    """A row without its formatting; None for what there is not."""
    server = row.server
    is_interval = server is not None and server.low != server.high
    return {
        **bench_as_json(row.measured),
        "server": None if server is None or is_interval else server.low,
        # JSON has no infinity; an open bucket has no upper bound.
        "server_low": server.low if server is not None and is_interval else None,
        "server_high": server.high
        if server is not None and is_interval and not math.isinf(server.high)
        else None,
        "difference": row.difference,
        "verdict": row.verdict,
        "notes": notes_of(row),
    }


def bench_as_json(measured: Measured) -> dict[str, Any]:
    figure = measured.figure
    return {
        "figure": measured.name,
        "family": catalog.BY_STEM[figure.family].name,
        "bench_formula": figure.bench_formula,
        "server_formula": figure.server_formula,
        "bench": measured.value,
    }


def _difference(row: Row) -> str:
    if row.difference is None:
        return _NO_VALUE
    if row.difference == 0.0 and row.measured.percent is not None:
        return "within"
    return f"{row.difference:+.1%}"


def _interval(server: Interval | None) -> str:
    if server is None:
        return _NO_VALUE
    if server.low == server.high:
        return _number(server.low)
    return f"{_number(server.low)}..{_number(server.high)}"


def _number(value: float | None) -> str:
    if value is None:
        return _NO_VALUE
    return f"{value:.0f}" if value.is_integer() and value < 1e15 else f"{value:.4g}"
