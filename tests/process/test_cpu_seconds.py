"""The processor time of a server is that of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.server import end_session, session_cpu_seconds, start_session

#: Each process works until it has used so much, and says how much it was.
WORK = """import time
while time.process_time() < 0.6: pass
print(time.process_time(), flush=True)
"""
#: A child that has ended, one that lives on, and the leader itself.
SCRIPT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORK!r}], check=True)
child = subprocess.Popen([sys.executable, "-c", {WORK + "time.sleep(600)"!r}])
{WORK}
time.sleep(600)
"""


def test_processor_time_is_that_of_the_leader_and_all_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    leader: subprocess.Popen[bytes] = start_session([sys.executable, "-c", SCRIPT], os.environ, log)
    try:
        deadline = time.monotonic() + 120
        while len(said := log.read_text().split()) < 3:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        # Ticks are cut off, and the end of the first child is after its word.
        expected = pytest.approx(sum(map(float, said)), abs=0.3)
        assert session_cpu_seconds(leader.pid) == expected
    finally:
        end_session(leader)
