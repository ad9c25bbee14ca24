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
BLOCKED_SECONDS = 0.5
#: ... less this share of the time since the last long call.
FORGIVEN_SHARE = 0.05

#: How much of an event, or of a stranger's text, a log line shows.
_SHOWN = 300


class Listener:
    """One implementation of one hook, with its counts; it lives as long as it is registered.

    ``received`` counts the events it was given, ``dropped`` those of them that a full queue lost,
    ``errors`` what it raised and what counts as such. :attr:`call` is what a hook calls: the
    function itself, or the queue before it.
    """

    __slots__ = (
        "_blocked_at",
        "_blocked_seconds",
        "_in_a_row",
        "_lock",
        "_move",
        "_on_error",
        "_refused",
        "_remove",
        "_returned",
        "call",
        "dropped",
        "errors",
        "failing",
        "function",
        "hook",
        "inline",
        "is_on",
        "plugin",
        "received",
        "timed",
    )

    def __init__(
        self,
        plugin: str,
        hook: str,
        function: Callable[[Any], object],
        *,
        timed: bool,
        remove: Callable[[Listener], None],
        move: Callable[[Listener], None],
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        """``remove`` takes the listener off its hook, ``move`` puts it on a thread of its own.

        ``on_error`` is called with every error.
        """
        self.plugin = plugin
        self.hook = hook
        self.function = function
        self.call = function
        self.inline = True
        #: Whether the time for which it blocks its callers counts against it.
        self.timed = timed
        self.is_on = True
        self.received = self.dropped = self.errors = 0
        #: Whether the last call was no plain success.
        self.failing = False
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._refused = False
        self._returned = False
        self._blocked_seconds = 0.0
        self._blocked_at = 0.0
        self._remove = remove
        self._move = move
        self._on_error = on_error

    @property
    def calls(self) -> int:
        """Events that reached it, or will when its queue has come to them."""
        return self.received - self.dropped

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
        with self._lock:
            if not self._refused:
                self._in_a_row = 0
                self.failing = False
            self._refused = False

    def failed(self, error: BaseException) -> bool:
        """Count what the implementation raised; True for what the caller has to raise again.

        That is an interrupt of the operator, which arrives in whatever the main thread is doing.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if isinstance(error, KeyboardInterrupt) and in_main_thread:
            return True
        with internal_errors.suppressed("counting a hook plugin's error"):
            self._count(error)
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
                "used. This is logged once",
                self.plugin,
                _SHOWN,
                type(result).__name__,
                self.hook,
            )
        if self.failing:
            self.succeeded()

    def blocked_for(self, seconds: float) -> None:
        """A call blocked one of the server's threads for that long."""
        now = monotonic()
        with self._lock:
            forgiven = FORGIVEN_SHARE * (now - self._blocked_at)
            self._blocked_seconds = max(0.0, self._blocked_seconds - forgiven) + seconds
            self._blocked_at = now
            if self._blocked_seconds < BLOCKED_SECONDS or not self.inline:
                return
            self.inline = False
        logger.warning(
            "omni-metrics: hook plugin %r blocked the server in %s, the last time for %.3f s; from "
            "now on it is called on a thread of its own. Mark such functions with "
            "@hookimpl(slow=True)",
            self.plugin,
            self.hook,
            seconds,
        )
        self._move(self)

    def drop(self, why: str) -> None:
        """An event is lost to this implementation; ``why`` is logged the first time."""
        with self._lock:
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
        with self._lock:
            self._in_a_row = 0
            self.is_on = True

    def _count(self, error: BaseException) -> None:
        with self._lock:
            self.errors += 1
            self._in_a_row += 1
            self.failing = True
            first = self.errors == 1
            switch_off = self.is_on and self._in_a_row >= FAULTS_IN_A_ROW
            if switch_off:
                self.is_on = False
        if self._on_error is not None:
            self._on_error(error)
        if first:
            logger.error(
                "omni-metrics: hook plugin %r failed in %s: %s; the event reached the other "
                "implementations. Further errors there are counted, not logged",
                self.plugin,
                self.hook,
                type(error).__name__,
                exc_info=(type(error), error, error.__traceback__),
            )
        if switch_off:
            self._remove(self)
            logger.warning(
                "omni-metrics: hook plugin %r failed %d times in a row in %s and was switched off "
                "there. To switch it on again, mend it and restart the server, or call "
                "vllm_omni_metrics_plugin.hooks.plugins.switch_on(%r)",
                self.plugin,
                FAULTS_IN_A_ROW,
                self.hook,
                self.plugin,
            )
