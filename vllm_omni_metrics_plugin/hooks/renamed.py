"""Names that were public in an earlier release: they still work for one, and warn where used.

Python shows such a warning once for each line that uses the name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


def warn(old: str, new: str, *, above: int) -> None:
    """Warn of an old name, at the line that is ``above`` calls above the caller of this one."""
    text = f"{old} was renamed to {new}; the old name goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=above + 2)


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
