"""Several API servers that share one ``/metrics``, and what that mode cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.doctor.report import Finding


def check(environ: Mapping[str, str]) -> list[Finding]:
    """What the mode costs, and what is wrong with the folder; nothing outside of the mode."""
    if not api_servers.is_on(environ):
        return []
    findings = [
        Finding("note", "multiprocess", f"{', '.join(limit.families)}: {limit.reason}")
        for limit in api_servers.limits()
    ]
    folder = api_servers.folder(environ)
    named = f"{api_servers.variable(environ)}={str(folder)!r}"
    if not folder.is_dir():
        why = f"{named} is not a folder; every process that counts will fail"
        findings.append(Finding("broken", "multiprocess", why))
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"{named} cannot be written to; every process that counts will fail"
        findings.append(Finding("broken", "multiprocess", why))
    elif any(folder.glob("*.db")):
        why = f"{named} holds files of another run, which will be added to the next"
        findings.append(Finding("note", "multiprocess", why))
    return findings
