"""Trying every seam on the installed engine, in a process that serves nothing."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin.hooks import HookRegistry, PatchReported, hookimpl
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.seams.seam import Seam, SeamMismatchError, find
from vllm_omni_metrics_plugin.patches.state import EngineState

#: Whose functions are no patches of anybody: the engine's own, and what it decorates them with.
_NO_PATCHERS = {"vllm", "vllm_omni", "vllm_omni_metrics_plugin", "torch", *sys.stdlib_module_names}


class Tried(NamedTuple):
    """What became of one seam."""

    seam: Seam
    status: str
    reason: str
    #: Modules of others whose functions wrap the same method, outermost first.
    others: tuple[str, ...]


class _Reports:
    def __init__(self) -> None:
        self.by_name: dict[str, PatchReported] = {}

    @hookimpl
    def omni_patch_reported(self, event: PatchReported) -> None:
        self.by_name[event.name] = event


@contextlib.contextmanager
def as_onlooker() -> Iterator[None]:
    """Meanwhile the engine does not load us, and of what it imports it logs errors only."""
    before = dict(os.environ)
    os.environ.pop("VLLM_OMNI_METRICS", None)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        yield
    finally:
        for name in ("VLLM_OMNI_METRICS", "VLLM_LOGGING_LEVEL"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def load_general_plugins() -> str | None:
    """Load the engine's general plugins as each of its processes does, so that those who patch do.

    Returns what was raised, which would end a server; None if nothing was.
    """
    try:
        importlib.import_module("vllm.plugins").load_general_plugins()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def try_seams(seams: Iterable[Seam]) -> list[Tried]:
    """Import the seams' modules, apply all that fit, and take them out again; never raises."""
    seams = tuple(seams)
    unimported = {module: _import(module) for module in {seam.module for seam in seams}}
    others = {seam.name: _others(seam) for seam in seams if unimported[seam.module] is None}
    reports = _Reports()
    registry = HookRegistry()
    registry.register(reports, "doctor", timed=False)
    importable = (seam for seam in seams if unimported[seam.module] is None)
    patches = Patches(importable, EngineState(registry.hooks))
    try:
        patches.install()
    finally:
        patches.revert()
    tried = []
    for seam in seams:
        report = reports.by_name.get(seam.name)
        if report is None:
            reason = unimported[seam.module] or "nothing was reported"
            status = "skipped" if reason.startswith("no module") else "failed"
            tried.append(Tried(seam, status, reason, ()))
        else:
            tried.append(Tried(seam, report.status, report.reason, others[seam.name]))
    return tried


def _import(module: str) -> str | None:
    """Why it cannot be imported."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return f"no module {module}"
        return f"cannot import {module}: {error}"
    except Exception as error:
        return f"cannot import {module}: {type(error).__name__}: {error}"
    return None


def _others(seam: Seam) -> tuple[str, ...]:
    try:
        owner, method = find(seam)
    except SeamMismatchError:
        return ()
    placed: Any = owner.__dict__[method]
    function = placed.__func__ if isinstance(placed, (staticmethod, classmethod)) else placed
    nobody = {*_NO_PATCHERS, seam.module.partition(".")[0]}  # who wrote it is no patcher
    found: list[str] = []
    while function is not None:
        module = _module(function)
        if module.partition(".")[0] not in nobody and module not in found:
            found.append(module)
        function = getattr(function, "__wrapped__", None)
    return tuple(found)


def _module(function: Any) -> str:
    """Where a function was written; ``__module__`` is what ``functools.wraps`` has copied."""
    if isinstance(function, functools.partial):
        return _module(function.func)
    if isinstance(function, FunctionType):
        return str(function.__globals__.get("__name__", ""))
    # wrapt's wrappers pass for what they wrap, and keep the patcher's function beside it.
    patcher = getattr(function, "_self_wrapper", None)
    return _module(patcher) if patcher is not None else type(function).__module__
