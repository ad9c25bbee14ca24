"""Which address a server tells its stage engines, and when it begins to listen there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Starts two servers by multiprocessing, and prints how many channels there are, its own included.
LAUNCHER = """
import multiprocessing, os, sys
from vllm_omni_metrics_plugin.patches import process
process.installed_versions = lambda: {"vllm": "0.30.0", "vllm-omni": "0.30.0"}
from vllm_omni_metrics_plugin.patches.replicas import wrap_engine_init
from vllm_omni_metrics_plugin.startup import start

def address():
    return os.environ["_OMNI_METRICS_CHANNEL"]

def listens(told):
    return os.path.exists(told.removeprefix("ipc://"))

class Omni:
    model = "tiny"
    def __init__(self):
        # The engine starts processes, which inherit the address and whatever is open.
        self.told = address()
        assert not listens(self.told)

def server(said, gone, state=None):
    # After a fork the plugin is there already, and is not started again.
    state = state or start(os.environ)
    Omni.__init__ = wrap_engine_init(Omni.__init__, state)
    told = Omni().told
    assert listens(told)
    said.put(told)
    assert gone.wait(60)

if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    said, gone = context.Queue(), context.Event()
    state = start(os.environ)
    mine = address()
    given = (said, gone, state) if method == "fork" else (said, gone)
    servers = [context.Process(target=server, args=given) for _ in range(2)]
    for each in servers:
        each.start()
    told = {mine, *(said.get(timeout=60) for _ in servers)}
    gone.set()
    for each in servers:
        each.join()
        assert each.exitcode == 0
    print(len(told), address() == mine)
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_servers_of_one_launcher_have_a_channel_each(tmp_path: Path, method: str) -> None:
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    done = subprocess.run(
        [sys.executable, str(script), method],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(sys.path),
            "TMPDIR": str(tmp_path),
            "VLLM_OMNI_METRICS": "1",
            "VLLM_OMNI_METRICS_HOOKS": "",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3 True"
