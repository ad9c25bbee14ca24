"""A report for people."""

from __future__ import annotations

from vllm_omni_metrics_plugin import settings
from vllm_omni_metrics_plugin.doctor.installation import ALLOW_LIST
from vllm_omni_metrics_plugin.doctor.report import PatchState, Report
from vllm_omni_metrics_plugin.tables import aligned

_ORDER = ("broken", "degraded", "note")


def text(report: Report, *, verbose: bool = False) -> str:
    """The verdict and what is wrong, the worst first; if ``verbose``, the state of each part."""
    parts = [_summary(report)]
    if report.findings:
        by_severity = sorted(report.findings, key=lambda found: _ORDER.index(found.severity))
        findings = [(found.severity, found.check, found.message) for found in by_severity]
        parts.append(aligned(("SEVERITY", "CHECK", "WHAT"), findings))
    else:
        parts.append("Nothing is wrong.")
    if verbose:
        parts += _tables(report)
    else:
        parts.append("--verbose also shows every patch, family and hook plugin.")
    return "\n\n".join(parts)


def _tables(report: Report) -> list[str]:
    parts = []
    if report.patches:
        patches = [(p.name, p.status, p.target, _reason(p)) for p in report.patches]
        parts.append(aligned(("PATCH", "STATUS", "TARGET", "REASON"), patches))
    if report.families:
        families = [(f.name, f.available, f.reason) for f in report.families]
        parts.append(aligned(("FAMILY", "AVAILABLE", "REASON"), families))
    if report.hooks:
        hooks = [(h.name, h.status, f"{len(h.hooks)}", h.reason or h.value) for h in report.hooks]
        parts.append(aligned(("HOOK PLUGIN", "STATUS", "HOOKS", "FROM"), hooks, right=(2,)))
    return parts


def _summary(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.engine.items())
    tested = f"tested {report.tested}" if report.tested else "not tested"
    server = [("server", report.url)] if report.url is not None else []
    if report.prometheus is not None:
        server.append(("prometheus", report.prometheus))
    here = " here" if server else ""
    rows = [
        ("verdict", report.status),
        *server,
        (f"plugin{here}", report.plugin_version),
        (f"engine{here}", f"{versions} ({tested})" if versions else "not installed"),
        (settings.PREFIX, "on" if report.enabled else "off"),
        (ALLOW_LIST, "allows the plugin" if report.allowed else "does not allow the plugin"),
        ("channel", report.channel),
    ]
    return aligned(("PART", "STATE"), rows)


def _reason(patch: PatchState) -> str:
    wrapped = f"wrapped by {' and '.join(patch.others)}" if patch.others else ""
    return "; ".join(filter(None, (patch.reason, wrapped)))
