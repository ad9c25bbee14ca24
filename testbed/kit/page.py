"""One HTML file for a dashboard: all that it needs is in it, and nothing is fetched."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

_HERE = Path(__file__).parent
_GRID = ("x", "y", "w", "h")


class Drawing(NamedTuple):
    """The library that draws charts, as text."""

    script: str
    style: str


def page(board: dict[str, Any], drawing: Drawing) -> str:
    """The page of what :func:`testbed.kit.boards.shown` says of a dashboard."""
    panels = "\n".join(_panel(n, panel) for n, panel in enumerate(board["panels"]))
    # Within a script, tags end and begin things wherever they stand.
    data = json.dumps(board, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(board["title"])}</title>
<style>{drawing.style}
{(_HERE / "page.css").read_text()}</style>
</head>
<body>
<header>
<h1>{escape(board["title"])}</h1>
<p>{escape(board["description"])}</p>
<p class="when">{_when(board["times"])}</p>
</header>
<main>
{panels}
</main>
<script type="application/json" id="board">{data}</script>
<script>{drawing.script}</script>
<script>{(_HERE / "units.js").read_text()}</script>
<script>{(_HERE / "page.js").read_text()}</script>
</body>
</html>
"""


def _panel(number: int, panel: dict[str, Any]) -> str:
    x, y, w, h = (panel[name] for name in _GRID)
    place = f"grid-column: {x + 1} / span {w}; grid-row: {y + 1} / span {h}"
    title = escape(panel["title"])
    if panel["form"] == "row":
        return f'<h2 style="{place}">{title}</h2>'
    about = escape(panel["description"], quote=True)
    return (
        f'<section id="panel-{number}" class="{panel["form"]}" style="{place}">'
        f'<h3 title="{about}">{title}</h3>{_body(panel)}</section>'
    )


def _body(panel: dict[str, Any]) -> str:
    parts = {"chart": "series", "number": "values", "table": "rows"}
    if not panel[parts[panel["form"]]]:
        return f'<p class="nothing">{escape(panel["nothing"])}</p>'
    if panel["form"] == "chart":
        return '<div class="plot"></div><div class="legend"></div>'
    if panel["form"] == "number":
        # A single number needs no name: the title says it.
        named = len(panel["values"]) > 1
        return "".join(
            f"<p>{_value(value, panel)}{f'<small>{escape(name)}</small>' if named else ''}</p>"
            for name, value in panel["values"]
        )
    head = "".join(f"<th>{escape(column)}</th>" for column in panel["columns"])
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell, panel)}</td>' for cell in row)}</tr>"
        for row in panel["rows"]
    )
    return f'<div class="rows"><table><tr>{head}</tr>{rows}</table></div>'


def _cell(cell: str | float | None, panel: dict[str, Any]) -> str:
    return escape(cell) if isinstance(cell, str) else _value(cell, panel)


def _value(value: float | None, panel: dict[str, Any]) -> str:
    """The script writes it in its unit, as it does on the axes."""
    return f'<b data-unit="{escape(panel["unit"])}" data-value="{json.dumps(value)}"></b>'


def _when(times: list[float]) -> str:
    start, end = (datetime.fromtimestamp(at, timezone.utc) for at in (times[0], times[-1]))
    return f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"
