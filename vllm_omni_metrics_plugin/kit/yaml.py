"""Rules as Prometheus reads them; what YAML the kit needs, and no more."""

from __future__ import annotations

import json

from vllm_omni_metrics_plugin.kit.alerts import Alert
from vllm_omni_metrics_plugin.kit.panels import PAGES
from vllm_omni_metrics_plugin.kit.rules import Recorded

_HEAD = "# {what}; made by `vllm-omni-metrics kit`.\ngroups:\n  - name: {group}\n    rules:\n"


def recording_rules(recorded: tuple[Recorded, ...]) -> str:
    head = _HEAD.format(what="Ratios that alerts and people ask for", group="vllm-omni-ratios")
    return head + "".join(
        f"      - record: {one.name}\n{_block(one.expression)}" for one in recorded
    )


def alert_rules(alerts: tuple[Alert, ...]) -> str:
    head = _HEAD.format(what="Alerts; runbook.md says what to do", group="vllm-omni")
    return head + "\n".join(map(_alert, alerts))


def _alert(alert: Alert) -> str:
    annotations = {
        "summary": alert.summary,
        "description": alert.meaning,
        "runbook_url": f"{PAGES}/deploy/runbook.md#{alert.name.lower()}",
    }
    return (
        f"      - alert: {alert.name}\n"
        f"{_block(alert.expression)}"
        f"        for: {alert.lasting}\n"
        f"        labels:\n          severity: {alert.severity}\n"
        "        annotations:\n"
        + "".join(f"          {name}: {_quoted(text)}\n" for name, text in annotations.items())
    )


def _block(expression: str) -> str:
    return f"        expr: >-\n          {expression}\n"


def _quoted(text: str) -> str:
    """A JSON string is a YAML string as well."""
    return json.dumps(text, ensure_ascii=False)
