"""Who listens: registering hook plugins and finding the installed ones."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pluggy

from vllm_omni_metrics_plugin.hooks import specs
from vllm_omni_metrics_plugin.hooks.dispatch import Hook, Listener
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

ENTRY_POINT_GROUP = f"{specs.PROJECT}.hooks"


class HookManager:
    """The registered hook plugins. ``hooks.omni_...`` are the hooks to call."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(specs.PROJECT)
        self._pluggy.add_hookspecs(specs)
        self._hooks = {
            name: Hook(name, historic=bool(caller.is_historic()))
            for name, caller in vars(self._pluggy.hook).items()
            if name.startswith("omni_")
        }
        self.hooks: Any = SimpleNamespace(**self._hooks)

    def register(self, plugin: object, name: str | None = None) -> str:
        """Add a module or object whose ``@hookimpl`` functions are to be called.

        Returns the name it is registered under. Raises ValueError for what is registered already,
        for a hook that does not exist and for a signature that does not fit; nothing of the
        plugin is registered then.
        """
        known = name or self._pluggy.get_canonical_name(plugin)
        try:
            _check(plugin, known)
        except pluggy.PluginValidationError as error:
            raise ValueError(f"hook plugin {known!r} was not registered: {error}") from None
        self._pluggy.register(plugin, known)
        self._refresh()
        return known

    def unregister(self, plugin: object) -> None:
        """Remove a plugin; events under way may still reach it."""
        self._pluggy.unregister(plugin)
        self._refresh()

    def load_installed(self, settings: Settings) -> list[str]:
        """Register every installed hook plugin that ``settings`` allow; a broken one is skipped."""
        loaded = []
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            if entry.name in settings.hooks_blocked:
                continue
            if settings.hooks_allowed is not None and entry.name not in settings.hooks_allowed:
                continue
            try:
                loaded.append(self.register(entry.load(), entry.name))
            except BaseException as error:  # a plugin's module may raise anything, SystemExit too
                if isinstance(error, KeyboardInterrupt):
                    raise
                logger.warning(
                    "omni-metrics: hook plugin %r (%s) was skipped: %s: %s",
                    entry.name,
                    entry.value,
                    type(error).__name__,
                    error,
                )
        for missing in sorted((settings.hooks_allowed or frozenset()) - set(loaded)):
            logger.warning(
                "omni-metrics: VLLM_OMNI_METRICS_HOOKS names %r, which did not load; "
                "the others are used",
                missing,
            )
        return loaded

    def _refresh(self) -> None:
        for name, hook in self._hooks.items():
            caller = getattr(self._pluggy.hook, name)
            # pluggy keeps them in reverse of the order of calling
            hook.replace_listeners(
                tuple(
                    Listener(implementation.plugin_name, implementation.function)
                    for implementation in reversed(caller.get_hookimpls())
                )
            )


def _check(plugin: object, name: str) -> None:
    """Raise PluginValidationError unless each of the plugin's hooks can be called with an event.

    On a manager of its own: pluggy leaves a plugin that it refuses registered in part.
    """
    trial = pluggy.PluginManager(specs.PROJECT)
    trial.add_hookspecs(specs)
    trial.register(plugin, name)
    trial.check_pending()
    for caller in trial.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            if implementation.hookwrapper or implementation.wrapper:
                message = f"{caller.name} cannot be wrapped, only implemented"
                raise pluggy.PluginValidationError(plugin, message)
            if tuple(implementation.argnames) != ("event",):
                message = f"{caller.name} takes one argument, event"
                raise pluggy.PluginValidationError(plugin, message)
