"""The operator's kit as its readers have it: the files in ``deploy/``, and what they ask."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from testbed import prometheus
from testbed.paths import ROOT

DEPLOY = ROOT / "deploy"
RULES = tuple(DEPLOY / "prometheus" / f"{kind}-rules.yml" for kind in ("recording", "alert"))


class Asked(NamedTuple):
    """One expression, where it stands, and the labels that its texts name."""

    where: str
    expression: str
    named: frozenset[str]


def dashboards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "grafana").iterdir()}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Those that draw something, with the names of their dashboards."""
    for name, board in sorted(dashboards().items()):
        yield from ((name, panel) for panel in board["panels"] if panel["type"] != "row")


def asked_by_panels() -> Iterator[Asked]:
    for name, panel in panels():
        for target in panel["targets"]:
            named = frozenset(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            where = f"{name}: {panel['title']} {target['refId']}"
            yield Asked(where, target["expr"], named)


def rules() -> list[dict[str, Any]]:
    """Recording rules, then alerts."""
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def asked_by_rules() -> Iterator[Asked]:
    for rule in rules():
        texts = " ".join(rule.get("annotations", {}).values())
        named = frozenset(re.findall(r"\$labels\.(\w+)", texts))
        yield Asked(rule.get("record") or rule["alert"], rule["expr"], named)


def asked_by_runbook() -> Iterator[Asked]:
    text = (DEPLOY / "runbook.md").read_text()
    for section in text.split("\n## ")[1:]:
        (query,) = re.findall(r"```\n(.+?)\n```", section, re.DOTALL)
        yield Asked(f"runbook: {section.partition(chr(10))[0]}", query, frozenset())


class Promtool:
    """Has Prometheus' own code compute rules and expressions, over series that a test makes."""

    def __init__(self, folder: Path) -> None:
        """Raises :class:`testbed.prometheus.UnavailableError`."""
        self._program = prometheus.fetched() / "promtool"
        self._folder = folder

    def test(self, *groups: Mapping[str, Any]) -> None:
        """Fails where promtool does, with what it says."""
        file = self._folder / "tests.yaml"
        rules = [str(path) for path in RULES]
        content = {"rule_files": rules, "evaluation_interval": "1m", "tests": groups}
        file.write_text(json.dumps(content))
        self.run("test", "rules", str(file))

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._program), *arguments], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
