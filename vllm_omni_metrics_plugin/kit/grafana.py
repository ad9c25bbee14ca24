"""A dashboard as Grafana imports it."""

from __future__ import annotations

import json
import re
from typing import Any

from vllm_omni_metrics_plugin.kit.panels import COLUMNS, PAGES, Dashboard, Panel, Target
from vllm_omni_metrics_plugin.kit.promql import series

_SCHEMA = 39
_HEIGHT = 8
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: What a panel says that has no data.
NO_TRAFFIC = "No traffic"
_DRAWN_AS = {
    "lines": "timeseries",
    "stacked": "timeseries",
    "number": "stat",
    "table": "table",
    "matrix": "table",
}


def dashboard(board: Dashboard) -> str:
    """As JSON, with a line feed at the end."""
    content = {
        "uid": f"vllm-omni-{board.name}",
        "title": board.title,
        "description": board.description,
        "tags": ["vllm-omni"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "links": [
            {
                "type": "dashboards",
                "title": "vLLM-Omni",
                "tags": ["vllm-omni"],
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            },
            {
                "type": "link",
                "title": "Definitions",
                "url": f"{PAGES}/docs/reference/definitions.md",
                "targetBlank": True,
            },
        ],
        "panels": _placed(board),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _placed(board: Dashboard) -> list[dict[str, Any]]:
    """Row after row; what does not fit beside the last panel goes below."""
    placed: list[dict[str, Any]] = []
    y = 0
    for row in board.rows:
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": grid,
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + _HEIGHT
            grid = {"x": x, "y": y, "w": panel.width, "h": _HEIGHT}
            placed.append({"id": len(placed) + 1, "gridPos": grid, **_panel(panel)})
            x += panel.width
        y += _HEIGHT
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.form in ("number", "table", "matrix")
    content: dict[str, Any] = {
        "type": _DRAWN_AS[panel.form],
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "links": [{"title": panel.about, "url": panel.link, "targetBlank": True}],
        "targets": [
            _target(target, number, instant=instant, table=panel.form in ("table", "matrix"))
            for number, target in enumerate(panel.targets)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                **({"max": 1} if panel.unit == "percentunit" and panel.form == "stacked" else {}),
                "noValue": NO_TRAFFIC,
                "custom": _drawing(panel),
            },
            "overrides": [],
        },
    }
    if panel.form == "table":
        content["transformations"] = [{"id": "organize", "options": _columns(panel)}]
    elif panel.form == "matrix":
        fields = {"rowField": "from", "columnField": "to", "valueField": "Value"}
        content["transformations"] = [{"id": "groupingToMatrix", "options": fields}]
    elif panel.form == "number":
        content["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"]},
            "graphMode": "none",
            # No limit is the same for everybody, and without one all of it would be green.
            "colorMode": "none",
        }
    else:
        content["options"] = {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return content


def _columns(panel: Panel) -> dict[str, Any]:
    """The labels in the order in which the panel's legend names them, then the value."""
    labels = [
        label for target in panel.targets for label in re.findall(r"{{(\w+)}}", target.legend)
    ]
    hidden = ["Time", *(["Value"] if panel.column is None else [])]
    return {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: n for n, name in enumerate((*labels, "Value"))},
        "renameByName": {} if panel.column is None else {"Value": panel.column},
    }


def _drawing(panel: Panel) -> dict[str, Any]:
    if panel.form == "stacked":
        return {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}
    return {"fillOpacity": 0} if panel.form == "lines" else {}


def _target(target: Target, number: int, *, instant: bool, table: bool) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": _DATASOURCE,
        "expr": target.expression,
        "legendFormat": target.legend,
        "instant": instant,
        "range": not instant,
        "format": "table" if table else "time_series",
    }


def _variables() -> list[dict[str, Any]]:
    """Datasource, job, model, stage by its name, replica; each within what was chosen before."""
    info = series("stage_info")
    within = f'{info}{{job=~"$job",model_name=~"$model_name"}}'
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
        },
        _variable("job", "Job", f"label_values({info}, job)"),
        _variable("model_name", "Model", f'label_values({info}{{job=~"$job"}}, model_name)'),
        {
            **_variable("stage", "Stage", f"query_result(group by (stage, stage_name) ({within}))"),
            "regex": '/stage="(?<value>[^"]*)",stage_name="(?<text>[^"]*)"/',
        },
        _variable(
            "replica",
            "Replica",
            f'label_values({within[:-1]},stage=~"$stage"}}, replica)',
        ),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    """All means whatever value, and none: series without the label are among them."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 3,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
