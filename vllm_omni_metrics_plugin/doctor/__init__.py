"""Is everything there that the metrics need, and does a running server measure what it should?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.doctor import (
    api_servers,
    hook_plugins,
    installation,
    laws,
    names,
    patches,
    prometheus,
    traffic,
)
from vllm_omni_metrics_plugin.doctor.report import Finding, Report
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES
from vllm_omni_metrics_plugin.patches.table import seams_of
from vllm_omni_metrics_plugin.scrape import Access, NoAnswerError, Scrape, fetch, read

__all__ = ["Finding", "Report", "examine"]

_TIMEOUT_SECONDS = 5.0
#: So many pages have to break a law together.
_PAGES = 3
#: Several API servers publish their counts once a second.
_BETWEEN_PAGES_SECONDS = 1.1


def examine(
    environ: Mapping[str, str],
    url: str | None = None,
    access: Access | None = None,
    *,
    prometheus_url: str | None = None,
    hours: float = 1.0,
) -> Report:
    """Examine the environment and the engine in it, or the server at ``url``; never raises.

    With ``prometheus_url`` also, or instead, what that Prometheus remembers of servers over the
    last ``hours``. Without either, the engine is imported into this process and each patch is tried
    on it. A server has done that itself, so its own report is taken, and it alone decides: what
    there is to say of this environment, which may be any, are notes. ``access`` is how to get at
    the server and at Prometheus.
    """
    settings, of_settings = installation.read_settings(environ)
    report = Report(
        __version__,
        enabled=settings.enabled,
        allowed=installation.is_allowed(environ),
        engine=process.installed_versions(),
        url=url,
        prometheus=prometheus_url,
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
    if url is not None or prometheus_url is not None:
        here = [replace(f, severity="note", message=f"here, {f.message}") for f in here]
    if url is not None:
        page = _look(url, access, report)
        if page is not None:
            report.patches = patches.reported(page, seams)
            report.findings += traffic.judge(page)
            report.findings += _laws(page, url, access)
    elif prometheus_url is None and "vllm-omni" in report.engine:
        report.patches, of_engine = patches.tried(seams)
        report.findings += of_engine
    if prometheus_url is not None:
        try:
            report.findings += prometheus.judge(prometheus_url, hours, access)
        except NoAnswerError as why:
            report.findings.append(Finding("broken", "prometheus", str(why)))
    report.findings += here
    if report.patches:
        report.findings += patches.check(report.patches, unavailable, seams)
        report.families = patches.availability(report.patches, unavailable, seams)
    return report


def _laws(page: Scrape, url: str, access: Access | None) -> list[Finding]:
    """The laws that the server breaks, and not only the page, which is not one moment."""
    pages = [page]
    broken = laws.broken(pages)
    while broken and len(pages) < _PAGES:
        time.sleep(_BETWEEN_PAGES_SECONDS)
        try:
            text = fetch(url, _TIMEOUT_SECONDS, access)
            again, _ = names.with_colons(read(text, url), text)
        except NoAnswerError:
            return []  # a server that is gone; what it has shown was in the middle of something
        pages.append(again)
        broken = laws.broken(pages)
    return [Finding("degraded", f"law_{found.law.name}", str(found)) for found in broken]


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
