"""One implementation of one hook: what it did, and what becomes of it when it misbehaves."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks.events import Event

logger = logging.getLogger("vllm.omni_metrics")

#: Faults without a success in between after which an implementation is switched off.
FAULTS_IN_A_ROW = 10
#: Calls that take longer count against the plugin ...
LONG_CALL_SECONDS = 0.005
#: ... which is moved to a thread of its own when they add up to this ...
HELD_UP_SECONDS = 0.5
#: ... less what is forgiven with time, in seconds per second.
FORGIVEN = 0.05

#: How much of an event, or of a stranger's text, a log line shows.
_SHOWN = 300

_lock = threading.Lock()


class Listener:
    """One implementation, with its account; both live as long as it is registered.

    ``told`` counts the events it was given, ``dropped`` those of them that a full queue lost,
    ``errors`` its faults. :attr:`call` is what a hook calls: the function itself, or the
    queue before it.
    """

    __slots__ = (
        "_held_up_at",
        "_held_up_seconds",
        "_in_a_row",
        "_leave",
        "_move",
        "_notice",
        "_refused",
        "_returned",
        "call",
        "dropped",
        "errors",
        "function",
        "hook",
        "in_doubt",
        "inline",
        "is_on",
        "plugin",
        "timed",
        "told",
    )

    def __init__(
        self,
        plugin: str,
        hook: str,
        function: Callable[[Any], object],
        *,
        timed: bool,
        leave: Callable[[Listener], None],
        move: Callable[[Listener], None],
        notice: Callable[[BaseException], None] | None = None,
    ) -> None:
        """``leave`` takes the listener off its hook, ``move`` puts it on a thread of its own.

        ``notice`` is told of every fault.
        """
        self.plugin = plugin
        self.hook = hook
        self.function = function
        self.call = function
        self.inline = True
        #: Whether the time that it holds up its callers counts against it.
        self.timed = timed
        self.is_on = True
        self.told = self.dropped = self.errors = 0
        #: Whether the last call was no plain success.
        self.in_doubt = False
        self._in_a_row = 0
        self._refused = False
        self._returned = False
        self._held_up_seconds = 0.0
        self._held_up_at = 0.0
        self._leave = leave
        self._move = move
        self._notice = notice

    @property
    def calls(self) -> int:
        """Events that reached it, or will when its queue has come to them."""
        return self.told - self.dropped

    def trace(self) -> None:
        """Log every call from now on."""
        function = self.function

        def traced(event: Event) -> object:
            began = monotonic()
            try:
                return function(event)
            finally:
                logger.info(
                    "omni-metrics: %s -> %s in %.3f ms: %.*s",
                    self.hook,
                    self.plugin,
                    1e3 * (monotonic() - began),
                    _SHOWN,
                    event,
                )

        self.function = traced
        if self.inline:
            self.call = traced

    def succeeded(self) -> None:
        """A call went well after one that did not."""
        with _lock:
            if not self._refused:
                self._in_a_row = 0
                self.in_doubt = False
            self._refused = False

    def failed(self, error: BaseException) -> bool:
        """Account for what the implementation raised; whether it is not ours to keep.

        An interrupt of the operator arrives in whatever the main thread is doing.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if isinstance(error, KeyboardInterrupt) and in_main_thread:
            return True
        with internal_errors.suppressed("accounting for a hook plugin's error"):
            self._fault(error)
        return False

    def refuse_recursion(self) -> None:
        """The implementation called the hook by which it is being called."""
        self._refused = True
        self.failed(RecursionError(f"it called {self.hook} while it was called by {self.hook}"))

    def refuse_result(self, result: object) -> None:
        """The implementation returned something; nobody is there to use it."""
        if inspect.isawaitable(result) or inspect.isgenerator(result):
            if hasattr(result, "close"):
                result.close()  # else Python complains that it was never awaited
            raise TypeError(f"it returned a {type(result).__name__}, which nobody runs")
        if not self._returned:
            self._returned = True
            logger.warning(
                "omni-metrics: hook plugin %r returned a %.*s from %s; what hooks return is not "
                "used. Said once",
                self.plugin,
                _SHOWN,
                type(result).__name__,
                self.hook,
            )
        if self.in_doubt:
            self.succeeded()

    def held_up(self, seconds: float) -> None:
        """A call kept one of the server's threads waiting for that long."""
        now = monotonic()
        with _lock:
            forgiven = FORGIVEN * (now - self._held_up_at)
            self._held_up_seconds = max(0.0, self._held_up_seconds - forgiven) + seconds
            self._held_up_at = now
            if self._held_up_seconds < HELD_UP_SECONDS or not self.inline:
                return
            self.inline = False
        logger.warning(
            "omni-metrics: hook plugin %r held the server up in %s, the last time for %.3f s; from "
            "now on it is called on a thread of its own. Mark such functions with "
            "@hookimpl(slow=True)",
            self.plugin,
            self.hook,
            seconds,
        )
        self._move(self)

    def drop(self, why: str) -> None:
        """An event is lost to this listener; ``why`` is logged the first time."""
        with _lock:
            self.dropped += 1
            first = self.dropped == 1
        if first:
            logger.warning(
                "omni-metrics: hook plugin %r lost an event of %s: %s. Further losses are counted, "
                "not logged",
                self.plugin,
                self.hook,
                why,
            )

    def switch_on(self) -> None:
        with _lock:
            self._in_a_row = 0
            self.is_on = True

    def _fault(self, error: BaseException) -> None:
        with _lock:
            self.errors += 1
            self._in_a_row += 1
            self.in_doubt = True
            first = self.errors == 1
            switch_off = self.is_on and self._in_a_row >= FAULTS_IN_A_ROW
            if switch_off:
                self.is_on = False
        if self._notice is not None:
            self._notice(error)
        if first:
            logger.error(
                "omni-metrics: hook plugin %r failed in %s: %s; the event reached the other "
                "listeners. Further errors there are counted, not logged",
                self.plugin,
                self.hook,
                type(error).__name__,
                exc_info=(type(error), error, error.__traceback__),
            )
        if switch_off:
            self._leave(self)
            logger.warning(
                "omni-metrics: hook plugin %r failed %d times in a row in %s and was switched off "
                "there. To switch it on again, mend it and restart the server, or call "
                "vllm_omni_metrics_plugin.hooks.plugins.switch_on(%r)",
                self.plugin,
                FAULTS_IN_A_ROW,
                self.hook,
                self.plugin,
            )
