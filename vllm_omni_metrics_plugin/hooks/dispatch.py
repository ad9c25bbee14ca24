"""Calling the implementations of one hook: nearly free without any, isolated with them.

pluggy finds, validates and orders the implementations; calling them goes over a cached tuple, as
pluggy's own call path lets one implementation's exception end the call for all.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Generic, TypeVar

from vllm_omni_metrics_plugin.hooks import renamed
from vllm_omni_metrics_plugin.hooks.events import Event
from vllm_omni_metrics_plugin.hooks.listener import LONG_CALL_SECONDS, Listener

AnyEvent = TypeVar("AnyEvent", bound=Event)


class Hook(Generic[AnyEvent]):
    """One hook, with its implementations in the order of calling.

    The caller checks :attr:`listeners` before it builds an event, then calls the hook with it::

        if hook.listeners:
            hook(RequestArrived(...))
    """

    __slots__ = ("busy", "listeners", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Listener, ...] = ()
        #: How many calls of listeners are under way, in all threads.
        self.busy = 0

    def __call__(self, event: AnyEvent, to: Iterable[Listener] | None = None) -> None:
        """Call every implementation, or those of ``to``; what one of them raises stays here.

        Raises nothing but the operator's KeyboardInterrupt. An implementation that calls the hook
        that is calling it is refused: the event would reach the others twice, and itself without
        end.
        """
        if self.busy and (caller := self._caller()) is not None:
            caller.refuse_recursion()
            return
        self.busy += 1  # += on an attribute never lets go of the GIL, so these need no lock
        try:
            for listener in self.listeners if to is None else to:
                listener.received += 1
                began = monotonic() if listener.timed else 0.0
                try:
                    returned = listener.call(event)
                    if returned is not None:
                        listener.refuse_result(returned)
                    elif listener.failing and listener.inline:
                        listener.succeeded()
                except BaseException as error:  # SystemExit too: it must not end the server
                    if listener.failed(error):
                        raise
                if began and (seconds := monotonic() - began) > LONG_CALL_SECONDS:
                    listener.blocked_for(seconds)
        finally:
            self.busy -= 1

    def call_queued(self, listener: Listener, event: AnyEvent) -> None:
        """Call one implementation with an event from its queue, in a thread of its own."""
        self.busy += 1
        try:
            returned = listener.function(event)
            if returned is not None:
                listener.refuse_result(returned)
            elif listener.failing:
                listener.succeeded()
        except BaseException as error:  # a thread that ends would leave its queue to fill up
            listener.failed(error)
        finally:
            self.busy -= 1

    def _caller(self) -> Listener | None:
        """The listener of this hook that this thread is in; None if the busy ones are elsewhere.

        Found on the stack: noting it down with each call would cost more than the call.
        """
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code in _CALLING and frame.f_locals.get("self") is self:
                found: Listener | None = frame.f_locals.get("listener")
                return found
            frame = frame.f_back  # type: ignore[assignment]
        return None


#: The functions in which a listener is being called.
_CALLING = (Hook.__call__.__code__, Hook.call_queued.__code__)
renamed.CALLS.update(_CALLING)


class HistoricHook(Hook[AnyEvent]):
    """A hook that is called with its past events for implementations that come later."""

    __slots__ = ("_lock", "history")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.history: list[AnyEvent] = []
        self._lock = threading.Lock()

    def __call__(self, event: AnyEvent, to: Iterable[Listener] | None = None) -> None:
        if to is None:
            with self._lock:
                self.history.append(event)
                to = self.listeners
        super().__call__(event, to)

    def replace(self, listeners: tuple[Listener, ...]) -> tuple[AnyEvent, ...]:
        """Replace the listeners; returns the past events, which the new ones have missed."""
        with self._lock:
            self.listeners = listeners
            return tuple(self.history)
