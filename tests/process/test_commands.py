"""The command, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", [["doctor", "--url"], ["hooks", "--url"]])
@pytest.mark.parametrize("exists", [True, False])
def test_command_leaves_nothing_in_the_folder_that_running_servers_share(
    tmp_path: Path, command: list[str], exists: bool
) -> None:
    folder = tmp_path / "shared"
    if exists:
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "vllm_omni_metrics_plugin.cli", *command, "http://127.0.0.1:1"],
        env={**os.environ, "VLLM_OMNI_METRICS": "1", "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "does not answer" in done.stdout, done.stderr
    assert not exists or list(folder.iterdir()) == []
