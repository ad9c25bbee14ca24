"""What switching on means in this process: settings, hook plugins, exporter, patches."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from vllm_omni_metrics_plugin import __version__, settings
from vllm_omni_metrics_plugin.hooks import Configured, plugins
from vllm_omni_metrics_plugin.hooks.manager import BUILT_IN
from vllm_omni_metrics_plugin.patches import Patches, engine
from vllm_omni_metrics_plugin.patches.table import SEAMS

logger = logging.getLogger("vllm.omni_metrics")


def start(environ: Mapping[str, str]) -> None:
    """Bring the plugin up, as far as this process needs it."""
    role = engine.process_role()
    if role == "model_inspection":
        return
    # Every process reads the variables; one of them complains is enough.
    warn = logger.warning if role == "server" else logger.debug
    wanted = settings.parse(environ, warn)
    if not wanted.enabled:
        return
    versions = engine.installed_versions()
    if "vllm-omni" not in versions:
        if role == "server":
            logger.info(
                "omni-metrics: vllm-omni is not installed, nothing to observe; "
                "this vLLM server runs untouched"
            )
        return
    if wanted.trace:
        plugins.trace()
    if role == "server" and BUILT_IN not in wanted.hooks_blocked:
        from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter

        plugins.register(PrometheusExporter(wanted.buckets), BUILT_IN, timed=False)
    plugins.load_installed(wanted, warn)
    Patches(seam for seam in SEAMS if seam.role == role).install()
    plugins.hooks.omni_configured(
        Configured(
            settings=wanted,
            role=role,
            versions={"vllm-omni-metrics-plugin": __version__, **versions},
        )
    )
    if role == "server":
        release = versions["vllm-omni"]
        tested = "" if release in engine.TESTED_RELEASES else ", which it was not tested on"
        logger.info("omni-metrics %s is on for vllm-omni %s%s", __version__, release, tested)
