"""The record of vLLM's families, to which the public dashboards are held, on the installed vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testbed.pages.dashboards import PAGE
from testbed.paths import ROOT


def test_recorded_page_is_the_one_of_the_installed_vllm(tmp_path: Path) -> None:
    now = tmp_path / PAGE.name
    subprocess.run(
        [sys.executable, "-m", "tests.engine.vllm_families", str(now)],
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    assert now.read_text() == PAGE.read_text(), "run `python -m tests.engine.vllm_families`"
