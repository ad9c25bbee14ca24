"""A checkout without an engine: what its tests say about those that need one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from testbed.paths import ROOT

#: Runs pytest as if there were no engine, and says whether something asked for it all the same.
WITHOUT_ENGINE = """
import sys
import pytest
ENGINE = {"torch", "vllm", "vllm_omni"}
sys.modules.update(dict.fromkeys(ENGINE))
status = pytest.main([*sys.argv[1:], "-q", "-p", "no:cacheprovider"])
print("status", int(status))
"""


def pytest_without_engine(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ENGINE, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_layers_that_need_the_engine_are_skipped_with_one_reason_each() -> None:
    printed = pytest_without_engine("tests/engine", "tests/contract", "tests/e2e")
    reasons = re.findall(r"^SKIPPED .*: (tests/.*)$", printed, re.MULTILINE)
    assert len(reasons) == 3, printed
    assert {reason.split()[0] for reason in reasons} == {
        *("tests/engine", "tests/contract", "tests/e2e")
    }
    assert all("make test" in reason for reason in reasons)
    assert re.search(r"^\d+ skipped in", printed, re.MULTILINE), printed
    assert "status 5" in printed, "no test was collected"


@pytest.mark.parametrize("layer", ["unit", "process"])
def test_other_layers_are_collected_without_it(layer: str) -> None:
    printed = pytest_without_engine("--collect-only", f"tests/{layer}")
    assert "status 0" in printed, printed
    assert "SKIPPED" not in printed
