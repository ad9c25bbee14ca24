"""A report for people."""

from __future__ import annotations

from vllm_omni_metrics_plugin import settings
from vllm_omni_metrics_plugin.doctor.installation import ALLOW_LIST
from vllm_omni_metrics_plugin.doctor.report import PatchState, Report
from vllm_omni_metrics_plugin.tables import aligned

_ORDER = ("broken", "degraded", "note")


def text(report: Report) -> str:
    """The verdict, the state of each part, and last what is wrong, the worst first."""
    parts = [_summary(report)]
    if report.patches:
        patches = [(p.name, p.status, p.target, _reason(p)) for p in report.patches]
        parts.append(aligned(("PATCH", "STATUS", "TARGET", "REASON"), patches))
    if report.families:
        families = [(f.name, f.available, f.reason) for f in report.families]
        parts.append(aligned(("FAMILY", "AVAILABLE", "REASON"), families))
    if report.hooks:
        hooks = [(h.name, h.status, f"{len(h.hooks)}", h.reason or h.value) for h in report.hooks]
        parts.append(aligned(("HOOK PLUGIN", "STATUS", "HOOKS", "FROM"), hooks, right=(2,)))
    if report.findings:
        by_severity = sorted(report.findings, key=lambda found: _ORDER.index(found.severity))
        findings = [(found.severity, found.check, found.message) for found in by_severity]
        parts.append(aligned(("SEVERITY", "CHECK", "WHAT"), findings))
    else:
        parts.append("Nothing is wrong.")
    return "\n\n".join(parts)


def _summary(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.engine.items())
    tested = f"tested {report.tested}" if report.tested else "not tested"
    rows = [
        ("plugin", f"{report.plugin_version}: {report.status}"),
        ("engine", f"{versions} ({tested})" if versions else "not installed"),
        (settings.PREFIX, "on" if report.enabled else "off"),
        (ALLOW_LIST, "allows the plugin" if report.allowed else "does not allow the plugin"),
        ("channel", report.channel),
    ]
    if report.url is not None:
        rows.append(("server", report.url))
    return aligned(("PART", "STATE"), rows)


def _reason(patch: PatchState) -> str:
    wrapped = f"wrapped by {' and '.join(patch.others)}" if patch.others else ""
    return "; ".join(filter(None, (patch.reason, wrapped)))
