"""Calling the listeners of one hook: nearly free without any, isolated with them.

pluggy finds, validates and orders the implementations; calling them goes over a cached tuple, as
pluggy's own call path lets one implementation's exception end the call for all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin import faults
from vllm_omni_metrics_plugin.hooks.events import Event

logger = logging.getLogger("vllm.omni_metrics")


class Listener(NamedTuple):
    """One implementation of one hook."""

    plugin: str
    call: Callable[[Any], object]


#: Called with (plugin, hook) for every exception that a listener raises.
error_listeners: list[Callable[[str, str], None]] = []

_logged: set[tuple[str, str]] = set()


class Hook:
    """One hook's listeners.

    The caller checks :attr:`listeners` before it builds an event, then calls the hook with it::

        if hook.listeners:
            hook(RequestArrived(...))
    """

    __slots__ = ("_historic", "listeners", "name")

    def __init__(self, name: str, *, historic: bool) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()
        self._historic: list[Event] | None = [] if historic else None

    def __call__(self, event: Event) -> None:
        """Tell every listener; what one of them raises stays here. Never raises."""
        if self._historic is not None:
            self._historic.append(event)
        for listener in self.listeners:
            self._tell(listener, event)

    def replace_listeners(self, listeners: tuple[Listener, ...]) -> None:
        """Change who listens; newcomers to a historic hook are told its past events."""
        newcomers = [listener for listener in listeners if listener not in self.listeners]
        self.listeners = listeners
        for event in tuple(self._historic or ()):
            for listener in newcomers:
                self._tell(listener, event)

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            listener.call(event)
        except KeyboardInterrupt:
            raise
        except BaseException:  # SystemExit too: a listener must not end the server
            fault = (listener.plugin, self.name)
            try:
                for count in error_listeners:
                    count(*fault)
            except Exception:
                faults.contain("counting a hook plugin's error")
            if fault not in _logged:
                _logged.add(fault)
                logger.exception(
                    "omni-metrics: hook plugin %r raised in %s; the event reached the other "
                    "listeners. Further errors there are counted, not logged",
                    *fault,
                )
