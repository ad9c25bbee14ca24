"""Which hook plugins a server of this environment loads, where each runs, what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.doctor.logged import warnings_logged
from vllm_omni_metrics_plugin.doctor.report import Finding, HookPlugin
from vllm_omni_metrics_plugin.doctor.rules import TRAPS, PluginFamily
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.exporters.prometheus.guard import made
from vllm_omni_metrics_plugin.hooks import HookRegistry, Process
from vllm_omni_metrics_plugin.hooks.loading import BUILT_IN, files, load_installed
from vllm_omni_metrics_plugin.hooks.marks import PROCESSES
from vllm_omni_metrics_plugin.hooks.sources import Source, installed
from vllm_omni_metrics_plugin.patches.seams.releases import Release
from vllm_omni_metrics_plugin.settings import Settings


@dataclass
class Loaded:
    """What came of loading every hook plugin, as each process of the engine would."""

    plugins: list[HookPlugin] = field(default_factory=list)
    #: By hook, the plugins that a server would call, in that order.
    called: dict[str, list[str]] = field(default_factory=dict)
    #: What a server would log.
    warnings: list[str] = field(default_factory=list)
    #: That a plugin's module made, by the plugin's name.
    families: dict[str, list[MetricWrapperBase]] = field(default_factory=dict)

    @contextmanager
    def loading(self, plugin: str) -> Iterator[None]:
        with made(REGISTRY, self.families.setdefault(plugin, [])):
            yield


def load(chosen: Settings) -> Loaded:
    """Load the hook plugins here, those of the stages' processes with them."""
    loaded = Loaded()
    registries = {process: HookRegistry() for process in PROCESSES}
    said: dict[Process, list[str]] = {}
    for process, registry in registries.items():
        registry.process = process
        if process == "server" and BUILT_IN not in chosen.hooks_blocked:
            exporter = PrometheusExporter({}, registry.stats, CollectorRegistry())
            registry.register(exporter, BUILT_IN)
        with warnings_logged() as warnings:
            load_installed(registry, chosen, loading=loaded.loading)
        said[process] = [text.replace(f"({process})", "(the stages')") for text in warnings]
    # What is for one kind of the stages' processes alone is right.
    of_stages = [text for text in said["stage_engine"] if text in said["worker"]]
    loaded.warnings = list(dict.fromkeys([*said["server"], *of_stages]))
    loaded.called = {
        name: [listener.plugin for listener in hook.listeners]
        for name, hook in vars(registries["server"].hooks).items()
    }
    of_server = installed()
    names = {source.name for source in of_server}
    of_stages_alone = [source for source in installed("worker") if source.name not in names]
    for source in (Source(BUILT_IN, "built in", object), *of_server, *of_stages_alone):
        asked_for = chosen.allows_hooks_of(source.name)
        loaded.plugins.append(_state(source, chosen, asked_for, registries, loaded.warnings))
    for source in files(chosen):
        loaded.plugins.append(_state(source, chosen, True, registries, loaded.warnings))
    return loaded


def check(
    chosen: Settings, release: Release, environ: Mapping[str, str]
) -> tuple[list[HookPlugin], list[Finding]]:
    """Each hook plugin with what became of it, and what is wrong with them."""
    loaded = load(chosen)
    findings = [Finding("degraded", "hooks", warning) for warning in loaded.warnings]
    if BUILT_IN in chosen.hooks_blocked:
        why = f"VLLM_OMNI_METRICS_HOOKS blocks {BUILT_IN}: /metrics will have none of our families"
        findings.append(Finding("degraded", "hooks", why))
    several = api_servers.is_on(environ)
    for plugin, families in loaded.families.items():
        findings += [
            finding for family in families for finding in _traps(plugin, family, release, several)
        ]
    return loaded.plugins, findings


def _state(
    source: Source,
    chosen: Settings,
    asked_for: bool,
    registries: Mapping[Process, HookRegistry],
    warnings: list[str],
) -> HookPlugin:
    listeners = {
        process: [
            listener
            for hook in vars(registry.hooks).values()
            for listener in hook.listeners
            if listener.plugin == source.name
        ]
        for process, registry in registries.items()
    }
    of_all = [listener for found in listeners.values() for listener in found]
    status, reason = "loaded", ""
    if not any(source.name in registry.names for registry in registries.values()):
        skipped = f"hook plugin {source.name!r} ({source.value}) was skipped: "
        reason = next((w[len(skipped) :] for w in warnings if w.startswith(skipped)), "")
        if source.name in chosen.hooks_blocked:
            status = "blocked"
        elif asked_for:
            status = "failed"
        else:
            status = "not asked for"
    return HookPlugin(
        source.name,
        source.value,
        status,
        reason,
        tuple(dict.fromkeys(listener.hook for listener in of_all)),
        source.distribution,
        source.version,
        tuple(process for process, found in listeners.items() if found),
        tuple(dict.fromkeys(listener.hook for listener in of_all if not listener.inline)),
    )


def _traps(
    plugin: str, family: MetricWrapperBase, release: Release, several: bool
) -> Iterator[Finding]:
    name = family._name
    about = PluginFamily(
        name=name,
        mode=getattr(family, "_multiprocess_mode", ""),
        unregistered=re.search(release.unregistered, name) is not None,
        several=several,
    )
    for trap in TRAPS:
        if trap.meets(about):
            why = f"hook plugin {plugin!r}: its family {name}: {trap.message}"
            yield Finding(trap.severity, trap.name, why)
            return
