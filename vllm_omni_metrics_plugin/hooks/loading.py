"""Finding the installed hook plugins, by their entry points."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points

from vllm_omni_metrics_plugin.hooks import checks, specs
from vllm_omni_metrics_plugin.hooks.registry import HookRegistry
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

ENTRY_POINT_GROUP = f"{specs.PROJECT}.hooks"

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
    warn: Callable[..., None] = logger.warning,
    loading: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[str]:
    """Register every installed hook plugin that ``settings`` allow; a broken one is skipped.

    Returns the names of those that were registered. ``warn`` is called as a logger's method.
    Each plugin is imported and registered within ``loading`` of its name.
    """
    loaded = []
    installed = entry_points(group=ENTRY_POINT_GROUP)
    for entry in installed:
        if not settings.allows_hooks_of(entry.name):
            continue
        try:
            with loading(entry.name):
                loaded.append(registry.register(entry.load(), entry.name))
        except BaseException as error:  # a plugin's module may raise anything, SystemExit too
            if isinstance(error, KeyboardInterrupt):
                raise
            warn(
                "omni-metrics: hook plugin %r (%s) was skipped: %s: %s",
                entry.name,
                entry.value,
                type(error).__name__,
                error,
            )
    _warn_of_unknown_names(registry.names, {entry.name for entry in installed}, settings, warn)
    return loaded


def _warn_of_unknown_names(
    registered: list[str], installed: set[str], settings: Settings, warn: Callable[..., None]
) -> None:
    """Warn of names in the settings that name no plugin, as mistyped ones do."""
    names = sorted({*installed, *ALL_BUILT_IN, *registered})
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
