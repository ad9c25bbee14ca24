"""Who listens: registering hook plugins, finding the installed ones, and keeping their accounts."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, NamedTuple

import pluggy

from vllm_omni_metrics_plugin.hooks import checks, specs
from vllm_omni_metrics_plugin.hooks.dispatch import HistoricHook, Hook
from vllm_omni_metrics_plugin.hooks.listener import Listener
from vllm_omni_metrics_plugin.hooks.worker import Worker, flush_all
from vllm_omni_metrics_plugin.settings import Settings

logger = logging.getLogger("vllm.omni_metrics")

ENTRY_POINT_GROUP = f"{specs.PROJECT}.hooks"

#: The plugin that is there without being installed; it can be blocked like the others.
BUILT_IN = "prometheus"


class Account(NamedTuple):
    """What one plugin's implementations of one hook did since the process began."""

    plugin: str
    hook: str
    #: Events that it was called with, or will be when its queue has come to them.
    calls: int
    #: Exceptions, attempts to call the hook from inside, coroutines that nobody awaits.
    errors: int
    #: Events that its queue had no room for.
    dropped: int
    #: False once it is switched off or unregistered.
    is_on: bool


@dataclass
class _Registered:
    """One plugin; the worker has no thread until a slow implementation is called."""

    plugin: object
    worker: Worker
    timed: bool
    listeners: dict[pluggy.HookImpl, Listener] = field(default_factory=dict)


class HookRegistry:
    """The registered hook plugins. ``hooks.omni_...`` are the hooks to call."""

    def __init__(self, notice: Callable[[BaseException], None] | None = None) -> None:
        """``notice`` is told of every fault of a plugin, which is contained all the same."""
        self._notice = notice
        self._pluggy = pluggy.PluginManager(specs.PROJECT)
        self._pluggy.add_hookspecs(specs)
        callers = self._pluggy.hook
        self._hooks = {
            name: HistoricHook(name) if getattr(callers, name).is_historic() else Hook(name)
            for name in vars(specs)
            if name.startswith("omni_")
        }
        self.hooks: Any = SimpleNamespace(**self._hooks)
        self._registered: dict[str, _Registered] = {}
        #: Unregistered, and perhaps still telling what was queued.
        self._leaving: list[_Registered] = []
        #: Calls, errors and drops of those who have left, by plugin and hook.
        self._past: dict[tuple[str, str], Counter[str]] = {}
        self._trace = False
        #: Held while the lists of listeners change, never while one of them is called.
        self._lock = threading.RLock()

    def register(self, plugin: object, name: str | None = None, *, timed: bool = True) -> str:
        """Add a module or object whose ``@hookimpl`` functions are to be called.

        Returns the name it is registered under. Raises ValueError for what is registered already,
        for a hook that does not exist and for a function that cannot be called; nothing of the
        plugin is registered then. ``timed=False``: whoever registers it vouches that it waits for
        nothing, so it is spared the watch of its time.
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
                    if implementation.plugin_name == known:
                        listener = self._listener(known, hook, implementation, registered)
                        registered.listeners[implementation] = listener
            missed = [
                (hook, event, [listener])
                for hook in self._hooks.values()
                for event in self._refresh(hook)
                for listener in registered.listeners.values()
                if listener.hook == hook.name
            ]
        self._warn_of_silence(plugin, known, registered)
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
        """Call those implementations of a plugin again that were switched off for their faults.

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
        """Log every call of every listener from now on (``VLLM_OMNI_METRICS_TRACE=1``)."""
        with self._lock:
            if self._trace:
                return
            self._trace = True
            for registered in self._registered.values():
                for listener in registered.listeners.values():
                    listener.trace()

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until slow listeners were told what is queued now; False if that takes longer."""
        with self._lock:
            workers = [r.worker for r in (*self._registered.values(), *self._leaving)]
        return flush_all(workers, seconds)

    def accounts(self) -> list[Account]:
        """What every plugin did with every hook that it implements or implemented."""
        with self._lock:
            self._settle()
            totals = {key: Counter(counts) for key, counts in self._past.items()}
            on: Counter[tuple[str, str]] = Counter()
            for registered in self._leaving:
                _add(totals, registered)
            for registered in self._registered.values():
                _add(totals, registered)
                for listener in registered.listeners.values():
                    on[listener.plugin, listener.hook] += listener.is_on
        return [
            Account(*key, counts["calls"], counts["errors"], counts["dropped"], bool(on[key]))
            for key, counts in totals.items()
        ]

    def load_installed(
        self, settings: Settings, warn: Callable[..., None] = logger.warning
    ) -> list[str]:
        """Register every installed hook plugin that ``settings`` allow; a broken one is skipped.

        Returns the names of those that listen now. ``warn`` is called as a logger's method.
        """
        loaded = []
        installed = entry_points(group=ENTRY_POINT_GROUP)
        for entry in installed:
            if not settings.allows_hooks_of(entry.name):
                continue
            try:
                loaded.append(self.register(entry.load(), entry.name))
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
        names = sorted({entry.name for entry in installed} | {BUILT_IN, *self._registered})
        asked_for = settings.hooks_allowed or frozenset()
        for missing in sorted((asked_for - set(self._registered)) - settings.hooks_blocked):
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
        return loaded

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

    def _listener(
        self, name: str, hook: Hook, implementation: pluggy.HookImpl, registered: _Registered
    ) -> Listener:
        def leave(listener: Listener) -> None:
            with self._lock:
                self._refresh(hook)

        def move(listener: Listener) -> None:
            # With all of its plugin, which would else hear of things in another order.
            for other in list(registered.listeners.values()):
                registered.worker.take(self._hooks[other.hook], other)

        function = implementation.function
        listener = Listener(
            name,
            hook.name,
            function,
            timed=registered.timed,
            leave=leave,
            move=move,
            notice=self._notice,
        )
        if self._trace:
            listener.trace()
        if getattr(function, specs.SLOW, False):
            registered.worker.take(hook, listener)
        return listener

    def _implementations(self, hook: Hook) -> list[pluggy.HookImpl]:
        """In the order of calling, which pluggy keeps reversed."""
        caller = getattr(self._pluggy.hook, hook.name)
        return list(reversed(caller.get_hookimpls()))

    def _refresh(self, hook: Hook) -> tuple[Any, ...]:
        """Renew the tuple that the hook calls; returns the past events of a historic one."""
        listeners = tuple(
            listener
            for implementation in self._implementations(hook)
            if (listener := self._registered[implementation.plugin_name].listeners[implementation])
            and listener.is_on
        )
        if isinstance(hook, HistoricHook):
            return hook.welcome(listeners)
        hook.listeners = listeners
        return ()

    def _settle(self) -> None:
        """Close the accounts of those who have left for good."""
        for registered in [r for r in self._leaving if r.worker.is_done()]:
            self._leaving.remove(registered)
            _add(self._past, registered)

    def _warn_of_silence(self, plugin: object, name: str, registered: _Registered) -> None:
        forgotten = checks.unmarked(self._pluggy, plugin, list(self._hooks))
        if forgotten:
            logger.warning(
                "omni-metrics: hook plugin %r: %s is not marked with @hookimpl and is not called",
                name,
                ", ".join(forgotten),
            )
        elif not registered.listeners:
            logger.warning("omni-metrics: hook plugin %r implements no hook", name)


def _add(totals: dict[tuple[str, str], Counter[str]], registered: _Registered) -> None:
    for listener in registered.listeners.values():
        counts = totals.setdefault((listener.plugin, listener.hook), Counter())
        counts["calls"] += listener.calls
        counts["errors"] += listener.errors
        counts["dropped"] += listener.dropped
