"""Several API server processes that share one ``/metrics``, and what that mode cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.doctor.report import Finding

#: The variable by which prometheus_client's processes know each other.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def check_multiprocess(environ: Mapping[str, str]) -> list[Finding]:
    folder = environ.get(FOLDER)
    if folder is None:
        return []
    found = [
        Finding("note", "multiprocess", f"{', '.join(limit.families)}: {limit.reason}")
        for limit in api_servers.limits()
    ]
    if not Path(folder).is_dir():
        why = f"{FOLDER}={folder!r} is not a folder; every process that counts will fail"
        found.append(Finding("broken", "multiprocess", why))
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"{FOLDER}={folder!r} cannot be written to; every process that counts will fail"
        found.append(Finding("broken", "multiprocess", why))
    elif any(Path(folder).glob("*.db")):
        why = f"{FOLDER}={folder!r} holds files of another run, which will be added to the next"
        found.append(Finding("note", "multiprocess", why))
    return found
