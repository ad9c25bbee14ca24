"""Is everything there that the metrics need, and does a running server measure what it should?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.doctor import (
    api_servers,
    hook_plugins,
    installation,
    names,
    patches,
    traffic,
)
from vllm_omni_metrics_plugin.doctor.report import Finding, Report
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES
from vllm_omni_metrics_plugin.patches.table import seams_of
from vllm_omni_metrics_plugin.scrape import Access, NoAnswerError, Scrape, fetch, read

__all__ = ["Finding", "Report", "examine"]

_TIMEOUT_SECONDS = 5.0


def examine(
    environ: Mapping[str, str], url: str | None = None, access: Access | None = None
) -> Report:
    """Examine the environment and the engine in it, or the server at ``url``; never raises.

    Without a server, the engine is imported into this process and each patch is tried on it. A
    server has done that itself, so its own report is taken, and it alone decides: what there is to
    say of this environment, which may be any, are notes. ``access`` is how to get at the server.
    """
    settings, of_settings = installation.read_settings(environ)
    report = Report(
        __version__,
        enabled=settings.enabled,
        allowed=installation.is_allowed(environ),
        engine=process.installed_versions(),
        url=url,
    )
    release = BY_VERSION.get(report.engine.get("vllm-omni", ""))
    report.tested = release.tested if release is not None else None
    here = [
        *of_settings,
        *installation.check_engine(report.engine),
        *installation.check_switch(settings, report.allowed),
        *installation.check_allow_list(environ),
        *installation.check_front_end(environ),
    ]
    report.hooks, of_hooks = hook_plugins.check(settings, release or RELEASES[-1], environ)
    report.channel, of_channel = installation.check_channel(settings)
    here += [*of_hooks, *of_channel, *api_servers.check(environ)]
    here += installation.check_objectives(settings)
    here += installation.check_otel(settings, environ)
    unavailable = dict(release.unavailable) if release is not None else {}
    seams = seams_of(report.engine.get("vllm-omni", RELEASES[-1].version))
    if url is not None:
        here = [replace(f, severity="note", message=f"here, {f.message}") for f in here]
        page = _look(url, access, report)
        if page is not None:
            report.patches = patches.reported(page, seams)
            report.findings += traffic.judge(page)
    elif "vllm-omni" in report.engine:
        report.patches, of_engine = patches.tried(seams)
        report.findings += of_engine
    report.findings += here
    if report.patches:
        report.findings += patches.check(report.patches, unavailable, seams)
        report.families = patches.availability(report.patches, unavailable, seams)
    return report


def _look(url: str, access: Access | None, report: Report) -> Scrape | None:
    """What the server shows; None, and said in the report, if it shows nothing of the plugin."""
    try:
        text = fetch(url, _TIMEOUT_SECONDS, access)
        page, of_names = names.with_colons(read(text, url), text)
    except NoAnswerError as why:
        report.findings.append(Finding("broken", "server", str(why)))
        return None
    report.findings += of_names
    if not page.has_plugin:
        without = (
            f"{url} answers without the plugin's families: it was started without "
            "VLLM_OMNI_METRICS=1, the engine did not load the plugin, it is not ready yet, or its "
            f"front end is vLLM's in Rust ({installation.RUST}=1), which loads no plugin"
        )
        report.findings.append(Finding("broken", "server", without))
        return None
    return page
