"""Is everything there that the metrics need, and does a running server measure what it should?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.doctor import api_servers, installation, patches, traffic
from vllm_omni_metrics_plugin.doctor.report import Finding, Report
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES
from vllm_omni_metrics_plugin.patches.table import seams_of
from vllm_omni_metrics_plugin.scrape import NoAnswerError, Scrape, scrape

__all__ = ["Finding", "Report", "examine"]

_TIMEOUT_SECONDS = 5.0


def examine(environ: Mapping[str, str], url: str | None = None) -> Report:
    """Examine the environment and the engine in it, or the server at ``url``; never raises.

    Without a server, the engine is imported into this process and each patch is tried on it. A
    server has done that itself, so its own report is taken, and of this environment only those
    findings count that the server does not refute.
    """
    settings, findings = installation.read_settings(environ)
    report = Report(
        __version__,
        enabled=settings.enabled,
        allowed=installation.is_allowed(environ),
        engine=process.installed_versions(),
        url=url,
        findings=findings,
    )
    release = BY_VERSION.get(report.engine.get("vllm-omni", ""))
    report.tested = release.tested if release is not None else None
    of_environment = [
        *installation.check_engine(report.engine),
        *installation.check_switch(settings, report.allowed),
        *installation.check_allow_list(environ),
    ]
    report.hooks, of_hooks = installation.check_hooks(settings)
    report.channel, of_channel = installation.check_channel(settings)
    unavailable = dict(release.unavailable) if release is not None else {}
    seams = seams_of(report.engine.get("vllm-omni", RELEASES[-1].version))
    if url is not None:
        page = _look(url, report)
        if page is not None:
            of_environment = [replace(found, severity="note") for found in of_environment]
            # Its own socket is in use, and it says itself where it could not listen.
            of_channel = []
            report.patches = patches.reported(page, seams)
            report.findings += traffic.judge(page)
    elif "vllm-omni" in report.engine:
        report.patches, of_engine = patches.tried(seams)
        report.findings += of_engine
    report.findings += [
        *of_environment,
        *of_hooks,
        *of_channel,
        *api_servers.check(environ),
    ]
    if report.patches:
        report.findings += patches.check(report.patches, unavailable, seams)
        report.families = patches.availability(report.patches, unavailable, seams)
    return report


def _look(url: str, report: Report) -> Scrape | None:
    """What the server shows; None, and said in the report, if it shows nothing of the plugin."""
    try:
        page = scrape(url, _TIMEOUT_SECONDS)
    except NoAnswerError as why:
        report.findings.append(Finding("broken", "server", str(why)))
        return None
    if not page.has_plugin:
        without = (
            f"{url} answers without the plugin's families: it was started without "
            "VLLM_OMNI_METRICS=1, the engine did not load the plugin, or it is not ready yet"
        )
        report.findings.append(Finding("broken", "server", without))
        return None
    return page
