"""Names that were public in an earlier release: they still work for one, and warn where used.

Python shows such a warning once for each line that uses the name, and in a server not at all. So
what a hook plugin uses is logged as well, once, with the plugin's name.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")

logger = logging.getLogger("vllm.omni_metrics")

#: The release without the old names.
GONE_WITH = "0.3"
#: The code that calls plugins; the variable ``listener`` of its frame is what it calls.
CALLS: set[CodeType] = set()

_loading: ContextVar[str | None] = ContextVar("omni_metrics_loading", default=None)
#: The plugins and the names that were logged.
_logged: set[tuple[str, str]] = set()


@contextmanager
def used_by(plugin: str) -> Iterator[None]:
    """What is used in the block, the plugin of this name uses."""
    token = _loading.set(plugin)
    try:
        yield
    finally:
        _loading.reset(token)


def warn(old: str, new: str, *, above: int) -> None:
    """Warn of an old name, at the line that is ``above`` calls above the caller of this one."""
    text = f"{old} was renamed to {new}; the old name goes with {GONE_WITH}"
    plugin = _user()
    if plugin is not None:
        text = f"hook plugin {plugin!r}: {text}"
        if (plugin, old) not in _logged:
            _logged.add((plugin, old))
            logger.warning("omni-metrics: %s", text)
    warnings.warn(text, DeprecationWarning, stacklevel=above + 2)


def _user() -> str | None:
    """The plugin that is being called or loaded; None where that cannot be told."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code in CALLS:
            listener = frame.f_locals.get("listener")
            return None if listener is None else str(listener.plugin)
        frame = frame.f_back  # type: ignore[assignment]
    return _loading.get()


class RenamedField(Generic[Value]):
    """The old name of an event's field. It can be read; an event is made with the new name."""

    __slots__ = ("new", "old")

    def __init__(self, new: str) -> None:
        self.new = new
        self.old = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    @overload
    def __get__(self, event: None, kind: type) -> RenamedField[Value]: ...

    @overload
    def __get__(self, event: object, kind: type) -> Value: ...

    def __get__(self, event: object | None, kind: type) -> Value | RenamedField[Value]:
        if event is None:
            return self
        warn(f"{kind.__name__}.{self.old}", f"{kind.__name__}.{self.new}", above=1)
        value: Value = getattr(event, self.new)
        return value


def module_getattr(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module`` under which the old names of ``renamed`` find the new ones.

    Assign it where type checkers do not see it, or they accept every name.
    """

    def find(name: str) -> Any:
        new = renamed.get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        # ``from package import name`` asks twice, first to see whether name is a module.
        if sys._getframe(1).f_globals.get("__name__") != "importlib._bootstrap":
            warn(f"{module}.{name}", f"{module}.{new}", above=1)
        return getattr(sys.modules[module], new)

    return find
