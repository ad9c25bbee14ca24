"""What a dashboard shows of a time: its panels, as Grafana imports them, with their data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from testbed.prometheus import Element, Track
from vllm_omni_metrics_plugin.kit.grafana import dashboard
from vllm_omni_metrics_plugin.kit.panels import Dashboard

#: What Grafana fills in: "All" for each variable, and a few scrapes for the window of rates.
_VARIABLES = {"$__rate_interval": "15s"} | dict.fromkeys(
    ("$job", "$model_name", "$stage", "$replica"), ".*"
)
_FORMS = {"timeseries": "chart", "stat": "number", "table": "table", "row": "row"}


class Window(NamedTuple):
    """Seconds since the epoch, from where to where, and between two values."""

    start: float
    end: float
    step: float = 2.0

    @property
    def times(self) -> list[float]:
        # A whole number of steps may come out a little short of it.
        steps = int((self.end - self.start) / self.step + 1e-6)
        return [self.start + n * self.step for n in range(steps + 1)]


class Source(Protocol):
    """Who answers PromQL."""

    def ask(self, query: str, at: float | None = None) -> list[Element]: ...

    def ask_range(self, query: str, start: float, end: float, step: float) -> list[Track]: ...


def shown(board: Dashboard, source: Source, window: Window) -> dict[str, Any]:
    """A dashboard with the data of its panels, as JSON has it."""
    content = json.loads(dashboard(board))
    return {
        "name": board.name,
        "title": content["title"],
        "description": content["description"],
        "times": window.times,
        "panels": [_panel(panel, source, window) for panel in content["panels"]],
    }


def _panel(panel: dict[str, Any], source: Source, window: Window) -> dict[str, Any]:
    form = _FORMS[panel["type"]]
    common = {"title": panel["title"], "form": form, **panel["gridPos"]}
    if form == "row":
        return common
    defaults = panel["fieldConfig"]["defaults"]
    common |= {
        "description": panel["description"],
        "unit": defaults["unit"],
        "nothing": defaults["noValue"],
    }
    if form == "chart":
        stacked = "stacking" in defaults["custom"]
        series = _series(panel, source, window, stacked)
        return {**common, "stacked": stacked, "most": defaults.get("max"), "series": series}
    found = [
        (_legend(target["legendFormat"], element.labels), element)
        for target in panel["targets"]
        for element in source.ask(_filled(target["expr"]), window.end)
    ]
    if form == "number":
        return {**common, "values": [[name, _number(one.value)] for name, one in found]}
    elements = [element for _, element in found]
    (step,) = panel["transformations"]
    if step["id"] == "groupingToMatrix":
        return {**common, **_matrix(elements, step["options"])}
    return {**common, **_table(elements, step["options"])}


def _series(
    panel: dict[str, Any], source: Source, window: Window, stacked: bool
) -> list[dict[str, Any]]:
    """By name, the value at each of the window's times; ``tops`` is where it ends in a stack."""
    found: list[dict[str, Any]] = [
        {
            "name": _legend(target["legendFormat"], track.labels),
            "values": _at_times(track, window),
        }
        for target in panel["targets"]
        for track in source.ask_range(_filled(target["expr"]), *window)
    ]
    if stacked:
        for series, tops in zip(found, stack([s["values"] for s in found]), strict=True):
            series["tops"] = tops
    return found


def stack(rows: Sequence[Sequence[float | None]]) -> Iterator[list[float | None]]:
    """Each row on top of those before it; where there is none at all, there is no top."""
    height = [0.0] * len(rows[0]) if rows else []
    empty = [all(row[n] is None for row in rows) for n in range(len(height))]
    for row in rows:
        height = [below + (value or 0.0) for below, value in zip(height, row, strict=True)]
        yield [
            None if nothing else _number(top) for nothing, top in zip(empty, height, strict=True)
        ]


def _at_times(track: Track, window: Window) -> list[float | None]:
    values: list[float | None] = [None] * len(window.times)
    for at, value in track.values.items():
        values[round((at - window.start) / window.step)] = _number(value)
    return values


def _table(elements: Sequence[Element], options: dict[str, Any]) -> dict[str, Any]:
    """A column for each label and one for the value, but those that are not wanted."""
    cells: list[dict[str, Any]] = [
        {**element.labels, "Value": _number(element.value)} for element in elements
    ]
    order = options["indexByName"]
    names = sorted({name for row in cells for name in row}, key=lambda name: order.get(name, -1))
    wanted = [name for name in names if not options["excludeByName"].get(name)]
    rows = [[row.get(name, "") for name in wanted] for row in cells]
    titles = options["renameByName"]
    return {"columns": [titles.get(name, name) for name in wanted], "rows": sorted(rows, key=str)}


def _matrix(elements: Sequence[Element], options: dict[str, str]) -> dict[str, Any]:
    """A row for each sender, a column for each receiver."""
    above, beside = options["columnField"], options["rowField"]
    ends = {(e.labels[beside], e.labels[above]): _number(e.value) for e in elements}
    columns = sorted({column for _, column in ends})
    rows: list[list[Any]] = [
        [row, *(ends.get((row, column), "") for column in columns)]
        for row in sorted({row for row, _ in ends})
    ]
    return {"columns": [f"{beside}\\{above}", *columns], "rows": rows}


def _filled(expression: str) -> str:
    return re.sub(r"\$\w+", lambda name: _VARIABLES[name.group()], expression)


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name.group(1), ""), form).strip()


def _number(value: float) -> float | None:
    """As many digits as can be seen; JSON has no word for what is no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
