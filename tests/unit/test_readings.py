"""The page of misleading readings: what it names exists, and each reading was seen in a test."""

from __future__ import annotations

import ast
import re

import pytest

from testbed.paths import ROOT
from vllm_omni_metrics_plugin import catalog, kit
from vllm_omni_metrics_plugin.doctor.laws import LAWS
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES

PAGE = (ROOT / "docs" / "how-to" / "misleading-readings.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| reading", "| ---"))
]
NAMED = {
    *catalog.BY_STEM,
    *(label for family in catalog.FAMILIES for label in family.labels),
    *(value for family in catalog.FAMILIES for values in family.known.values() for value in values),
    *(rule.name for rule in RULES),
    *(f"law_{law.name}" for law in LAWS),
    *(alert.name for alert in kit.ALERTS),
    *REASONS,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_reading_was_seen_in_a_test(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    path, _, name = row[-1].strip("`").partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_reading_names_what_there_is(row: list[str]) -> None:
    for code in re.findall(r"`([^`]+)`", " ".join(row[:-1])):
        if code.startswith(("vllm_omni:", "vllm:num_", "async_chunk", "--", "VLLM_")):
            continue  # the engine's, and settings
        for word in re.findall(r"\w+", code.removeprefix("vllm:omni_")):
            assert word in NAMED, code


def test_there_are_twenty_readings_and_more() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 20
