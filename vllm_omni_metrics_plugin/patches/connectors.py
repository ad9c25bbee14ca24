"""The connectors, in whatever process they are: each payload that is put or got.

A connector's class is wrapped when its first instance is made. Receivers poll about every
millisecond and mostly get nothing; that way through the wrapper does nothing but look at the clock.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel.frames import FailedHalf, ReceivedHalf, SentHalf
from vllm_omni_metrics_plugin.hooks.events.transfers import Operation
from vllm_omni_metrics_plugin.patches.process import clock, own_replica
from vllm_omni_metrics_plugin.patches.state import EngineState, Report

_WRAPPED = "__omni_metrics_connector__"
_BASE = "OmniConnectorBase"
_LONGEST_KEY = 512
#: Receivers poll, so a payload that failed fails again at once: it is told so once in so long, and
#: more often than the server takes silence for the end (``hops.QUIET_SECONDS``).
_TELL_AGAIN_SECONDS = 10.0
#: Payloads that failed and are remembered.
_MOST_FAILED = 1_024


def wrap_create_connector(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``OmniConnectorFactory.create_connector``: every connector is made here."""
    failures = _Failures()

    @functools.wraps(original)
    def create_connector(cls: Any, *args: Any, **kwargs: Any) -> Any:
        connector = original(cls, *args, **kwargs)
        with internal_errors.suppressed("a new connector"):
            if state.report is not None:
                _wrap_class(type(connector), state.report, failures)
        return connector

    return create_connector


def _wrap_class(connector: type, report: Report, failures: _Failures) -> None:
    for method, wrap in (
        ("put", _wrap_put),
        ("get", _wrap_get),
        ("get_with_deadline", _wrap_get),
    ):
        owner = next((cls for cls in connector.__mro__ if method in vars(cls)), None)
        if owner is None:
            continue  # releases up to 0.28 have no get with a deadline
        function = vars(owner)[method]
        known = vars(function).get(_WRAPPED)
        if owner.__name__ == _BASE or known == report:
            continue
        wrapper = wrap(function if known is None else function.__wrapped__, report, failures)
        setattr(wrapper, _WRAPPED, report)
        setattr(owner, method, wrapper)


class _Innermost(threading.local):
    """When the last counted call of this thread began: methods of connectors call one another."""

    began = 0.0


_innermost = _Innermost()


class _Failures:
    """When each payload's last failure was told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[Any, ...], float] = OrderedDict()

    def is_news(self, payload: tuple[Any, ...]) -> bool:
        now = time.monotonic()
        with self._lock:
            told = self._told.get(payload)
            if told is not None and now - told < _TELL_AGAIN_SECONDS:
                return False
            self._told[payload] = now
            if len(self._told) > _MOST_FAILED:
                self._told.popitem(last=False)
        return True

    def forget(self, payload: tuple[Any, ...]) -> None:
        """It was sent, or received."""
        if self._told:
            with self._lock:
                self._told.pop(payload, None)


def _wrap_put(put: Callable[..., Any], report: Report, failures: _Failures) -> Callable[..., Any]:
    @functools.wraps(put)
    def wrapper(
        self: Any, from_stage: str, to_stage: str, put_key: str, *args: Any, **kwargs: Any
    ) -> Any:
        began = time.monotonic()
        try:
            result = put(self, from_stage, to_stage, put_key, *args, **kwargs)
        except BaseException as error:
            hop = _Hop(self, from_stage, to_stage, put_key)
            _report_failure(report, failures, hop, "send", began, error)
            raise
        with internal_errors.suppressed("a payload that was sent"):
            ended = time.monotonic()
            hop = _Hop(self, from_stage, to_stage, put_key)
            if not result[0]:
                _report_failure(report, failures, hop, "send", began, None)
            elif _innermost.began < began:
                _innermost.began = began
                fields = hop.fields()
                failures.forget(hop.payload("send"))
                report(
                    SentHalf(
                        **fields,
                        from_replica=own_replica(),
                        size_bytes=result[1],
                        duration_seconds=ended - began,
                        sent_at=ended,
                        clock=clock(),
                    )
                )
        return result

    return wrapper


def _wrap_get(get: Callable[..., Any], report: Report, failures: _Failures) -> Callable[..., Any]:
    @functools.wraps(get)
    def wrapper(
        self: Any, from_stage: str, to_stage: str, get_key: str, *args: Any, **kwargs: Any
    ) -> Any:
        began = time.monotonic()
        try:
            result = get(self, from_stage, to_stage, get_key, *args, **kwargs)
        except BaseException as error:
            hop = _Hop(self, from_stage, to_stage, get_key)
            _report_failure(report, failures, hop, "receive", began, error)
            raise
        if result is None:
            return None
        with internal_errors.suppressed("a payload that was received"):
            ended = time.monotonic()
            if _innermost.began < began:
                _innermost.began = began
                hop = _Hop(self, from_stage, to_stage, get_key)
                fields = hop.fields()
                failures.forget(hop.payload("receive"))
                report(
                    ReceivedHalf(
                        **fields,
                        to_replica=own_replica(),
                        size_bytes=result[1],
                        duration_seconds=ended - began,
                        received_at=ended,
                        clock=clock(),
                    )
                )
        return result

    return wrapper


class _Hop(NamedTuple):
    """The arguments of a call of a connector, as they came."""

    connector: Any
    from_stage: str
    to_stage: str
    key: str

    def payload(self, operation: Operation) -> tuple[Any, ...]:
        """What tells one that failed from others of this process."""
        return (operation, str(self.from_stage), str(self.to_stage), self.key)

    def fields(self) -> dict[str, Any]:
        """What every half says of its hop."""
        return {
            "from_stage": int(self.from_stage),
            "to_stage": int(self.to_stage),
            "key": self.key[-_LONGEST_KEY:],
            "connector": type(self.connector).__name__,
        }


def _report_failure(
    report: Report,
    failures: _Failures,
    hop: _Hop,
    operation: Operation,
    began: float,
    error: BaseException | None,
) -> None:
    with internal_errors.suppressed("a payload that failed"):
        if _innermost.began < began:
            _innermost.began = began
            if not failures.is_news(hop.payload(operation)):
                return
            report(
                FailedHalf(
                    **hop.fields(),
                    operation=operation,
                    replica=own_replica(),
                    reason=type(error).__name__ if error is not None else "refused",
                )
            )
