"""What switching on means in this process: settings, hook plugins, exporter, patches."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from vllm_omni_metrics_plugin import __version__, api_servers
from vllm_omni_metrics_plugin import settings as environment
from vllm_omni_metrics_plugin.hooks import Configured, plugins
from vllm_omni_metrics_plugin.hooks.loading import (
    BUILT_IN,
    OBJECTIVES,
    left_to_the_server,
    load_installed,
)
from vllm_omni_metrics_plugin.hooks.sources import STAGE_GROUP
from vllm_omni_metrics_plugin.objectives import (
    Objective,
    ObjectivesListener,
    read,
    with_bounds,
)
from vllm_omni_metrics_plugin.patches import Patches, process
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.patches.table import seams_of
from vllm_omni_metrics_plugin.request_headers import RequestHeaders
from vllm_omni_metrics_plugin.settings import Settings
from vllm_omni_metrics_plugin.startup.channel import open_channel
from vllm_omni_metrics_plugin.startup.otel import send_metrics, send_traces
from vllm_omni_metrics_plugin.startup.scrapes import answer_scrapes

#: What a hook plugin is loaded under, by its name.
Loading = Callable[[str], AbstractContextManager[object]]

logger = logging.getLogger("vllm.omni_metrics")


def start(environ: Mapping[str, str]) -> EngineState | None:
    """Bring the plugin up, as far as this process needs it.

    Returns what its patches share; None where it is off or there is nothing to observe.
    """
    role = process.process_role()
    if role == "model_inspection":
        return None
    # Every process reads the variables; one of them complains is enough.
    warn = logger.warning if role == "server" else logger.debug
    settings = environment.parse(environ, warn)
    if not settings.enabled:
        return None
    versions = process.installed_versions()
    if "vllm-omni" not in versions:
        if role == "server":
            logger.info(
                "omni-metrics: vllm-omni is not installed, nothing to observe; "
                "this vLLM server runs untouched"
            )
        return None
    if role == "bench":
        from vllm_omni_metrics_plugin.patches import bench

        Patches([bench.SEAM], EngineState(plugins.hooks)).install()
        return None
    plugins.process = role
    if settings.trace:
        plugins.trace()
    several = role == "server" and api_servers.is_on(environ)
    if several:
        # First, and so the last of all that this process does at its end.
        atexit.register(api_servers.withdraw_gauges)
    state = EngineState(plugins.hooks, settings.players)
    loading: Loading = nullcontext
    if role == "server":
        loading = _register_built_in(settings, warn, state)
    if settings.headers:
        state.request_headers = RequestHeaders(settings.headers, settings.headers_salt)
    open_channel(settings, role, state)
    if role == "server":
        answer_scrapes(settings, state)
    load_installed(plugins, settings, warn, loading)
    if role == "stage_engine":
        _log_left_out(settings)
    seams = seams_of(versions["vllm-omni"])
    Patches((seam for seam in seams if role in seam.roles), state).install()
    plugins.hooks.omni_configured(
        Configured(
            settings=settings,
            role=role,
            versions={"vllm-omni-metrics-plugin": __version__, **versions},
        )
    )
    if role == "server":
        release = versions["vllm-omni"]
        tested = "" if release in BY_VERSION else ", which it was not tested on"
        logger.info("omni-metrics %s is on for vllm-omni %s%s", __version__, release, tested)
        if several and api_servers.is_first():
            _log_limits()
    return state


def _register_built_in(
    settings: Settings, warn: Callable[[str], None], state: EngineState
) -> Loading:
    """The exporters and the objectives; returns what other hook plugins are loaded under."""
    loading: Loading = nullcontext
    objectives: tuple[Objective, ...] = ()
    if settings.slo is not None and OBJECTIVES not in settings.hooks_blocked:
        objectives = read(settings.slo, warn)
    spans_dropped = send_traces(settings, state, warn)
    send_metrics(settings, state, warn)
    if BUILT_IN not in settings.hooks_blocked:
        from vllm_omni_metrics_plugin.exporters.prometheus import Guard, PrometheusExporter

        guard = Guard()
        loading = guard.loading
        exporter = PrometheusExporter(
            with_bounds(settings.buckets, objectives),
            plugins.stats,
            native=settings.native,
            players=settings.players,
            held=guard.counts,
            spans_dropped=spans_dropped,
            objectives=objectives,
        )
        plugins.register(exporter, BUILT_IN, timed=False)
    if objectives:
        listener = ObjectivesListener(objectives)
        plugins.register(listener, OBJECTIVES, timed=False)
        state.requests.judge = listener.judge
    return loading


def _log_left_out(settings: Settings) -> None:
    left_out = left_to_the_server(settings)
    if left_out:
        logger.info(
            "omni-metrics: this process does without the hook plugins %s, which are for the "
            "server; until 0.1 every process loaded them. What is for the stages' processes, too, "
            "is in the entry point group %s",
            ", ".join(left_out),
            STAGE_GROUP,
        )


def _log_limits() -> None:
    limits = "; ".join(
        f"{', '.join(limit.families)}: {limit.reason}" for limit in api_servers.limits()
    )
    logger.info("omni-metrics: several API servers share their numbers through files. %s", limits)
