"""What mypy tells an author of hooks, who has nothing of ours but the installed package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import vllm_omni_metrics_plugin

SOURCES = Path(vllm_omni_metrics_plugin.__file__).parents[1]

#: Each line with a mistake names mypy's code for it; mypy has nothing to say of the others.
SAMPLE = """
from typing import Literal, assert_type

from vllm_omni_metrics_plugin.hooks import (
    Configured,
    MediaPacket,
    Process,
    RequestFinished,
    hookimpl,
    hookplugin,
    plugins,
)
from vllm_omni_metrics_plugin.hooks.dispatch import HistoricHook, Hook
from vllm_omni_metrics_plugin.testing import HookHarness, make_event

assert_type(plugins.hooks.omni_request_finished, Hook[RequestFinished])
assert_type(plugins.hooks.omni_configured, HistoricHook[Configured])
plugins.hooks.omni_request_finished(make_event(RequestFinished))
plugins.hooks.omni_request_finished(make_event(MediaPacket))  # E: arg-type
plugins.hooks.omni_request_finish  # E: attr-defined
assert_type(HookHarness().hooks.omni_media_packet, Hook[MediaPacket])
assert_type(plugins.process, Literal["server", "stage_engine", "worker"])

STAGES: tuple[Process, ...] = ("stage_engine", "worker")


@hookplugin(slow=True, processes=STAGES)
class Mine:
    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        event.since_when  # E: attr-defined

    @hookimpl(processes="server", slow=False)
    def omni_request_finished(self, event: RequestFinished) -> None:
        assert_type(event.outcome, str)
        event.outcom  # E: attr-defined

    @hookimpl(processes="stage")  # E: arg-type
    def omni_media_packet(self, event: MediaPacket) -> None: ...


assert_type(Mine(), Mine)
Mine().omni_request_finished(make_event(MediaPacket))  # E: arg-type
plugins.register(Mine(), timed="no")  # E: arg-type
"""


def test_sample_of_an_author_is_typed_through_and_through(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(SAMPLE)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--no-error-summary",
                "--hide-error-context",
            ),
            *("--python-version", "3.12", "--cache-dir", str(tmp_path / "cache"), "sample.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        (int(number), code)
        for number, code in re.findall(
            r"^sample\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M
        )
    }
    expected = {
        (number, line.partition("# E: ")[2])
        for number, line in enumerate(SAMPLE.splitlines(), start=1)
        if "# E: " in line
    }
    assert found == expected, done.stdout + done.stderr
