"""Loading hook plugins as a process of the engine does: which, in which order, what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from vllm_omni_metrics_plugin.hooks import checks, renamed
from vllm_omni_metrics_plugin.hooks.marks import SERVER, implementations
from vllm_omni_metrics_plugin.hooks.registry import HookRegistry
from vllm_omni_metrics_plugin.hooks.sources import STAGE_GROUP, Source, in_file, installed
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

Warn = Callable[..., None]

#: The plugin that is there without being installed; it can be blocked like the others.
BUILT_IN = "prometheus"
#: The same, where the settings name a file of objectives.
OBJECTIVES = "objectives"
#: The same, where the settings ask for them.
TRACES = "traces"
OTLP_METRICS = "otlp_metrics"
#: All of them.
ALL_BUILT_IN = (BUILT_IN, OBJECTIVES, TRACES, OTLP_METRICS)


def load_installed(
    registry: HookRegistry,
    settings: Settings,
    warn: Warn = logger.warning,
    loading: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[str]:
    """Register every hook plugin for the registry's process that ``settings`` allow.

    Those are the installed ones and, in the server, the files that ``settings`` name. A broken one
    is skipped. Returns the names of those that were registered. ``warn`` is called as a logger's
    method. Each plugin is imported and registered within ``loading`` of its name.
    """
    loaded: dict[str, object] = {}
    found = installed(registry.process)
    in_files = files(settings) if registry.process == "server" else []
    chosen = [source for source in found if settings.allows_hooks_of(source.name)]
    for source in (*chosen, *in_files):
        if source.name in settings.hooks_blocked:
            continue
        try:
            with loading(source.name), renamed.used_by(source.name):
                plugin = source.load()
                loaded[registry.register(plugin, source.name)] = plugin
        except BaseException as error:  # a plugin's module may raise anything, SystemExit too
            if isinstance(error, KeyboardInterrupt):
                raise
            warn(
                "omni-metrics: hook plugin %r (%s) was skipped: %s: %s",
                source.name,
                source.value,
                type(error).__name__,
                error,
            )
    if registry.process == "server":
        of_stages = {source.name for source in installed("stage_engine")}
        _warn_of_processes(loaded, of_stages, warn)
        names = {*of_stages, *(source.name for source in (*found, *in_files))}
        _warn_of_unknown_names({*registry.names, *of_stages}, names, settings, warn)
    return list(loaded)


def files(settings: Settings) -> list[Source]:
    """The hook plugins in the files that the settings name."""
    return [source for path in settings.hook_files for source in in_file(path)]


def left_to_the_server(settings: Settings) -> list[str]:
    """The installed plugins that the server alone loads; until 0.1, every process did."""
    of_stages = {source.name for source in installed("stage_engine")}
    return [
        source.name
        for source in installed()
        if settings.allows_hooks_of(source.name) and source.name not in of_stages
    ]


def _warn_of_processes(loaded: Mapping[str, object], of_stages: set[str], warn: Warn) -> None:
    """Warn of implementations for processes that do not load their plugin."""
    for name, plugin in loaded.items():
        if name in of_stages:
            continue
        for hook, function, asked in implementations(plugin):
            elsewhere = [process for process in asked.processes or () if process not in SERVER]
            if elsewhere:
                warn(
                    "omni-metrics: hook plugin %r: %s is for the process %s, which does not load "
                    "it; a package names it in the entry point group %s, too",
                    name,
                    hook,
                    " and ".join(elsewhere),
                    STAGE_GROUP,
                )
            elif asked.processes is None and checks.names_stages(function):
                warn(
                    "omni-metrics: hook plugin %r: %s asks whether it is in a stage's process, and "
                    "since 0.2 it is called in the server alone. If it is for the others, mark it "
                    "@hookimpl(processes=...) and name the plugin in the entry point group %s, "
                    "too",
                    name,
                    hook,
                    STAGE_GROUP,
                )


def _warn_of_unknown_names(
    registered: set[str], known: set[str], settings: Settings, warn: Warn
) -> None:
    """Warn of names in the settings that name no plugin, as mistyped ones do."""
    names = sorted({*known, *ALL_BUILT_IN, *registered})
    requested = settings.hooks_allowed or frozenset()
    for missing in sorted(requested.difference(registered) - settings.hooks_blocked):
        warn(
            "omni-metrics: VLLM_OMNI_METRICS_HOOKS names %r, which did not load%s; "
            "the others are used",
            missing,
            "" if missing in names else checks.nearest(missing, names),
        )
    for unknown in sorted(settings.hooks_blocked.difference(names)):
        warn(
            "omni-metrics: VLLM_OMNI_METRICS_HOOKS blocks %r, which is not installed%s",
            unknown,
            checks.nearest(unknown, names),
        )
