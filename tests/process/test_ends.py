"""What a process does before it ends."""

from __future__ import annotations

import subprocess
import sys


def test_end_of_a_script_waits_for_what_is_queued() -> None:
    script = """
import time
from vllm_omni_metrics_plugin.hooks import RequestFinished, hookimpl, plugins
from vllm_omni_metrics_plugin.testing import make_event

class Slow:
    @hookimpl(slow=True)
    def omni_request_finished(self, event):
        time.sleep(0.01)
        print("heard", flush=True)

plugins.register(Slow())
for _ in range(20):
    plugins.hooks.omni_request_finished(make_event(RequestFinished))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("heard") == 20
