"""Registering hook plugins: which implementations each hook calls, and in which order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy

from vllm_omni_metrics_plugin.hooks import checks, marks, renamed, specs
from vllm_omni_metrics_plugin.hooks.dispatch import HistoricHook, Hook
from vllm_omni_metrics_plugin.hooks.hooks import Hooks
from vllm_omni_metrics_plugin.hooks.listener import Listener
from vllm_omni_metrics_plugin.hooks.marks import Process
from vllm_omni_metrics_plugin.hooks.stats import HookStats, Totals
from vllm_omni_metrics_plugin.hooks.worker import Worker, flush_all

logger = logging.getLogger("vllm.omni_metrics")


@dataclass
class _Registered:
    """One plugin; the worker has no thread until a slow implementation is called."""

    plugin: object
    worker: Worker
    timed: bool
    listeners: dict[pluggy.HookImpl, Listener] = field(default_factory=dict)


class HookRegistry:
    """The registered hook plugins. ``hooks.omni_...`` are the hooks to call."""

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        """``on_error`` is called with every error of a plugin, which is contained all the same."""
        self._on_error = on_error
        self._pluggy = pluggy.PluginManager(specs.PROJECT)
        self._pluggy.add_hookspecs(specs)
        callers = self._pluggy.hook
        self._hooks: dict[str, Hook[Any]] = {
            name: HistoricHook(name) if getattr(callers, name).is_historic() else Hook(name)
            for name in vars(specs)
            if name.startswith("omni_")
        }
        #: One attribute for each hook, of the hook's name.
        self.hooks = Hooks(self._hooks)
        #: Where its process stands in the engine; implementations for others are not called.
        self.process: Process = "server"
        self._registered: dict[str, _Registered] = {}
        #: Unregistered, and perhaps still being called with what was queued.
        self._leaving: list[_Registered] = []
        #: Of those that have left.
        self._past = Totals()
        self._trace = False
        #: Held while the lists of listeners change, never while one of them is called.
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """The names of the registered plugins."""
        with self._lock:
            return list(self._registered)

    def register(self, plugin: object, name: str | None = None, *, timed: bool = True) -> str:
        """Add a module or object whose ``@hookimpl`` functions are to be called.

        Returns the name it is registered under. Raises ValueError for what is registered already,
        for a hook that does not exist and for a function that cannot be called; nothing of the
        plugin is registered then. ``timed=False``: whoever registers it vouches that it waits for
        nothing, so the time that its calls take is not watched.
        """
        with self._lock:
            known = name or self._free_name(plugin)
            self._refuse_misfits(plugin, known)
            try:
                self._pluggy.register(plugin, known)
            except pluggy.PluginValidationError as error:  # something that we do not check
                self._pluggy.unregister(name=known)
                raise ValueError(f"hook plugin {known!r} was not registered: {error}") from None
            registered = _Registered(plugin, Worker(known), timed)
            self._registered[known] = registered
            for hook in self._hooks.values():
                for implementation in self._implementations(hook):
                    if implementation.plugin_name == known and self._is_for_here(implementation):
                        listener = self._listener(known, hook, implementation, registered)
                        registered.listeners[implementation] = listener
            missed = [
                (hook, event, [listener])
                for hook in self._hooks.values()
                for event in self._refresh(hook)
                for listener in registered.listeners.values()
                if listener.hook == hook.name
            ]
        self._warn_of_no_hooks(plugin, known, registered)
        for hook, event, listeners in missed:
            hook(event, listeners)
        return known

    def unregister(self, plugin: object) -> None:
        """Remove a plugin, given itself or its name; events under way may still reach it.

        Raises ValueError for what is not registered.
        """
        with self._lock:
            name = plugin if isinstance(plugin, str) else self._pluggy.get_name(plugin)
            if name is None or name not in self._registered:
                near = checks.nearest(str(name), list(self._registered))
                raise ValueError(f"hook plugin {name or plugin!r} is not registered{near}")
            registered = self._registered.pop(name)
            self._pluggy.unregister(name=name)
            for hook in self._hooks.values():
                self._refresh(hook)
            registered.worker.close()
            self._leaving.append(registered)
            self._settle()

    def switch_on(self, name: str) -> None:
        """Call those implementations of a plugin again that were switched off for their errors.

        Raises ValueError for a plugin that is not registered.
        """
        with self._lock:
            if name not in self._registered:
                near = checks.nearest(name, list(self._registered))
                raise ValueError(f"hook plugin {name!r} is not registered{near}")
            for listener in self._registered[name].listeners.values():
                listener.switch_on()
            for hook in self._hooks.values():
                self._refresh(hook)

    def trace(self) -> None:
        """Log every call of a hook implementation from now on (``VLLM_OMNI_METRICS_TRACE=1``)."""
        with self._lock:
            if self._trace:
                return
            self._trace = True
            for registered in self._registered.values():
                for listener in registered.listeners.values():
                    listener.trace()

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until slow implementations were called with all that is queued now.

        Returns False if that takes longer than ``seconds``.
        """
        with self._lock:
            workers = [r.worker for r in (*self._registered.values(), *self._leaving)]
        return flush_all(workers, seconds)

    def stats(self) -> list[HookStats]:
        """What every plugin did with every hook that it implements or implemented."""
        with self._lock:
            self._settle()
            totals = self._past.copy()
            for registered in self._leaving:
                totals.add(registered.listeners.values(), registered=False)
            for registered in self._registered.values():
                totals.add(registered.listeners.values(), registered=True)
        return totals.stats()

    def accounts(self) -> list[HookStats]:
        """The earlier name of :meth:`stats`."""
        renamed.warn("HookRegistry.accounts()", "HookRegistry.stats()", above=1)
        return self.stats()

    def _refuse_misfits(self, plugin: object, name: str) -> None:
        refused = f"hook plugin {name!r} was not registered: "
        if name in self._registered:
            raise ValueError(f"{refused}the name is taken")
        if self._pluggy.is_registered(plugin):
            raise ValueError(f"{refused}it is registered as {self._pluggy.get_name(plugin)!r}")
        found = checks.problems(self._pluggy, plugin, list(self._hooks))
        if found:
            raise ValueError(refused + "; ".join(found))

    def _free_name(self, plugin: object) -> str:
        """A module's name, or the class of an object; counted if there are several of a class."""
        named = plugin if hasattr(plugin, "__name__") else type(plugin)
        name = str(getattr(named, "__qualname__", named.__name__))
        names = (name, *(f"{name}-{n}" for n in range(2, len(self._registered) + 3)))
        return next(free for free in names if free not in self._registered)

    def _is_for_here(self, implementation: pluggy.HookImpl) -> bool:
        asked = marks.options_of(implementation.plugin, implementation.function)
        return self.process in (asked.processes or marks.SERVER)

    def _listener(
        self, name: str, hook: Hook[Any], implementation: pluggy.HookImpl, registered: _Registered
    ) -> Listener:
        def remove(listener: Listener) -> None:
            with self._lock:
                self._refresh(hook)

        def move(listener: Listener) -> None:
            # With all of its plugin, whose calls would else come in another order.
            for other in list(registered.listeners.values()):
                registered.worker.take(self._hooks[other.hook], other)

        function = implementation.function
        listener = Listener(
            name,
            hook.name,
            function,
            timed=registered.timed,
            remove=remove,
            move=move,
            on_error=self._on_error,
        )
        if self._trace:
            listener.trace()
        if marks.options_of(registered.plugin, function).slow:
            registered.worker.take(hook, listener)
        return listener

    def _implementations(self, hook: Hook[Any]) -> list[pluggy.HookImpl]:
        """In the order of calling, which pluggy keeps reversed."""
        caller = getattr(self._pluggy.hook, hook.name)
        return list(reversed(caller.get_hookimpls()))

    def _refresh(self, hook: Hook[Any]) -> tuple[Any, ...]:
        """Renew the tuple that the hook calls; returns the past events of a historic one."""
        listeners = tuple(
            listener
            for implementation in self._implementations(hook)
            if (of := self._registered[implementation.plugin_name].listeners)
            and (listener := of.get(implementation)) is not None
            and listener.is_on
        )
        if isinstance(hook, HistoricHook):
            return hook.replace(listeners)
        hook.listeners = listeners
        return ()

    def _settle(self) -> None:
        """Keep nothing but the counts of those whose queues are empty."""
        for registered in [r for r in self._leaving if r.worker.is_done()]:
            self._leaving.remove(registered)
            self._past.add(registered.listeners.values(), registered=False)

    def _warn_of_no_hooks(self, plugin: object, name: str, registered: _Registered) -> None:
        forgotten = checks.unmarked(self._pluggy, plugin, list(self._hooks))
        if forgotten:
            logger.warning(
                "omni-metrics: hook plugin %r: %s is not marked with @hookimpl and is not called",
                name,
                ", ".join(forgotten),
            )
        elif not registered.listeners:
            marked = any(checks.implementations(self._pluggy, plugin))
            logger.warning(
                "omni-metrics: hook plugin %r%s implements no hook%s%s",
                name,
                f" ({path})" if (path := getattr(plugin, "__file__", None)) else "",
                f" for this process ({self.process})" if marked else "",
                checks.instead(self._pluggy, plugin),
            )
