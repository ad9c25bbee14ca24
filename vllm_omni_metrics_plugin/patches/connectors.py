"""The connectors, in whatever process they are: each payload that is put or got.

A connector's class is wrapped when its first instance is made. Receivers poll about every
millisecond and mostly get nothing; that way through the wrapper does nothing but look at the clock.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import TransferFailed, TransferReceived, TransferSent, plugins
from vllm_omni_metrics_plugin.hooks.events.transfers import Operation
from vllm_omni_metrics_plugin.patches import process
from vllm_omni_metrics_plugin.patches.state import transfers

_WRAPPED = "__omni_metrics_connector__"
_BASE = "OmniConnectorBase"
_LONGEST_KEY = 512

_sent = plugins.hooks.omni_transfer_sent
_received = plugins.hooks.omni_transfer_received
_failed = plugins.hooks.omni_transfer_failed


def wrap_create_connector(original: Callable[..., Any]) -> Callable[..., Any]:
    """``OmniConnectorFactory.create_connector``: every connector is made here."""

    @functools.wraps(original)
    def create_connector(cls: Any, *args: Any, **kwargs: Any) -> Any:
        connector = original(cls, *args, **kwargs)
        with internal_errors.suppressed("a new connector"):
            _wrap_class(type(connector))
        return connector

    return create_connector


def _wrap_class(connector: type) -> None:
    for method, wrap in (
        ("put", _wrap_put),
        ("get", _wrap_get),
        ("get_with_deadline", _wrap_get),
    ):
        owner = next((cls for cls in connector.__mro__ if method in vars(cls)), None)
        if owner is None:
            continue  # releases up to 0.28 have no get with a deadline
        function = vars(owner)[method]
        if owner.__name__ != _BASE and _WRAPPED not in vars(function):
            wrapper = wrap(function)
            setattr(wrapper, _WRAPPED, True)
            setattr(owner, method, wrapper)


class _Innermost(threading.local):
    """When the last counted call of this thread began: methods of connectors call one another."""

    began = 0.0


_innermost = _Innermost()


def _wrap_put(put: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(put)
    def wrapper(
        self: Any, from_stage: str, to_stage: str, put_key: str, *args: Any, **kwargs: Any
    ) -> Any:
        began = time.monotonic()
        try:
            result = put(self, from_stage, to_stage, put_key, *args, **kwargs)
        except BaseException as error:
            _report_failure("send", self, from_stage, to_stage, put_key, began, error)
            raise
        with internal_errors.suppressed("a payload that was sent"):
            ended = time.monotonic()
            if not result[0]:
                _report_failure("send", self, from_stage, to_stage, put_key, began, None)
            elif _innermost.began < began:
                _innermost.began = began
                _report_sent(self, from_stage, to_stage, put_key, result[1], began, ended)
        return result

    return wrapper


def _wrap_get(get: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get)
    def wrapper(
        self: Any, from_stage: str, to_stage: str, get_key: str, *args: Any, **kwargs: Any
    ) -> Any:
        began = time.monotonic()
        try:
            result = get(self, from_stage, to_stage, get_key, *args, **kwargs)
        except BaseException as error:
            _report_failure("receive", self, from_stage, to_stage, get_key, began, error)
            raise
        if result is None:
            return None
        with internal_errors.suppressed("a payload that was received"):
            ended = time.monotonic()
            if _innermost.began < began:
                _innermost.began = began
                _report_received(self, from_stage, to_stage, get_key, result[1], began, ended)
        return result

    return wrapper


def _report_sent(
    connector: Any,
    from_stage: str,
    to_stage: str,
    key: str,
    size_bytes: int,
    began: float,
    ended: float,
) -> None:
    if _in_server() or _sent.listeners:
        event = TransferSent(
            **_about(connector, from_stage, to_stage, key),
            from_replica=_own_replica(),
            size_bytes=size_bytes,
            duration_seconds=ended - began,
            sent_at=ended,
            clock=_clock(),
        )
        (transfers.report if _in_server() else _sent)(event)


def _report_received(
    connector: Any,
    from_stage: str,
    to_stage: str,
    key: str,
    size_bytes: int,
    began: float,
    ended: float,
) -> None:
    if _in_server() or _received.listeners:
        event = TransferReceived(
            **_about(connector, from_stage, to_stage, key),
            to_replica=_own_replica(),
            size_bytes=size_bytes,
            duration_seconds=ended - began,
            received_at=ended,
            clock=_clock(),
        )
        (transfers.report if _in_server() else _received)(event)


def _report_failure(
    operation: Operation,
    connector: Any,
    from_stage: str,
    to_stage: str,
    key: str,
    began: float,
    error: BaseException | None,
) -> None:
    with internal_errors.suppressed("a payload that failed"):
        if _innermost.began >= began or not _failed.listeners:
            return
        _innermost.began = began
        _failed(
            TransferFailed(
                **_about(connector, from_stage, to_stage, key),
                model_name=transfers.model_name,
                operation=operation,
                replica=_own_replica(),
                reason=type(error).__name__ if error is not None else "refused",
            )
        )


def _about(connector: Any, from_stage: str, to_stage: str, key: str) -> dict[str, Any]:
    """What every event of a payload says of it."""
    return {
        "from_stage": int(from_stage),
        "to_stage": int(to_stage),
        "key": key[-_LONGEST_KEY:],
        "connector": type(connector).__name__,
    }


@functools.cache
def _in_server() -> bool:
    """A stage may run inside the server's process; there the other half is joined at once."""
    return process.process_role() == "server"


@functools.cache
def _own_replica() -> int | None:
    """The number that the engine gave this process's stage replica; None if it gave none."""
    number = os.environ.get("VLLM_OMNI_REPLICA_ID", "")
    if number.isdigit():
        return int(number)
    named = re.search(r"_replica(\d+)", multiprocessing.current_process().name)
    return int(named[1]) if named else None


@functools.cache
def _clock() -> str:
    """Processes with the same monotonic clock say the same: those under one running kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()
