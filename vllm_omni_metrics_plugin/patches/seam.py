"""One place in the engine that we wrap: finding it, checking it, wrapping it, letting it go.

A seam is a method of an engine class. It is wrapped on the class that defines it, so that every
``from x import y`` copy of the class sees the wrapper, whenever it was made.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vllm_omni_metrics_plugin.hooks.events import Role
from vllm_omni_metrics_plugin.patches import releases

Form = Literal[
    "function",
    "generator",
    "coroutine",
    "async generator",
    "static function",
    "class function",
]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Among the families that a seam feeds: all that vLLM's own stat logger makes.
ENGINE_FAMILIES = "vllm:*"

#: Set on our wrappers, with the seam's name.
MARK = "__omni_metrics_seam__"


class DoesNotFit(Exception):
    """The engine has no such place, or it is not what the seam was written for."""


@dataclass(frozen=True)
class Seam:
    """Where to wrap and what has to be found there.

    ``leading`` are the names of the first parameters after ``self``, ``keywords`` other parameters
    that the wrapper reads. ``wrap`` makes the wrapper of the original; for a static or class
    function it gets and returns the bare function.
    """

    name: str
    module: str
    #: ``Class.method``; the method may be inherited.
    attribute: str
    form: Form
    wrap: Wrap
    #: The families that have no samples without this seam.
    feeds: tuple[str, ...]
    leading: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    #: In which kinds of process the seam does its work.
    roles: tuple[Role, ...] = ("server",)
    #: The first and the last release that have this place; none says it is there from the first, or
    #: to the last.
    since: str | None = None
    until: str | None = None

    def is_in(self, release: str) -> bool:
        """Whether ``release`` is one that the seam was written for."""
        number = releases.number(release)
        return (self.since is None or releases.number(self.since) <= number) and (
            self.until is None or number <= releases.number(self.until)
        )

    @property
    def target(self) -> str:
        return f"{self.module}:{self.attribute}"


class AppliedSeam:
    """A wrapper in place, and how to take it out again."""

    def __init__(self, owner: type, method: str, original: object, wrapper: object) -> None:
        self._owner = owner
        self._method = method
        self._original = original
        self._wrapper = wrapper

    def revert(self) -> bool:
        """Put the original back; False if somebody wrapped our wrapper since then."""
        if self._owner.__dict__.get(self._method) is not self._wrapper:
            return False
        setattr(self._owner, self._method, self._original)
        return True


def apply(seam: Seam) -> AppliedSeam | None:
    """Wrap the seam in its imported module; None if it is wrapped already.

    Raises :class:`DoesNotFit` and leaves the engine as it was.
    """
    owner, method = _find(seam)
    original = owner.__dict__[method]
    kind = type(original) if isinstance(original, (staticmethod, classmethod)) else None
    function = original.__func__ if kind is not None else original
    if _wrapped_by_us(function, seam):
        return None
    _check(seam, original, function)
    wrapper = seam.wrap(function)
    setattr(wrapper, MARK, seam.name)
    placed = wrapper if kind is None else kind(wrapper)
    setattr(owner, method, placed)
    return AppliedSeam(owner, method, original, placed)


def _find(seam: Seam) -> tuple[type, str]:
    class_name, method = seam.attribute.split(".")
    cls = getattr(sys.modules[seam.module], class_name, None)
    if not isinstance(cls, type):
        raise DoesNotFit(f"no class {class_name}")
    for owner in cls.__mro__[:-1]:  # not what every object has
        if method in owner.__dict__:
            return owner, method
    raise DoesNotFit(f"no method {seam.attribute}")


def _wrapped_by_us(function: Any, seam: Seam) -> bool:
    while function is not None:
        if getattr(function, MARK, None) == seam.name and MARK in vars(function):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _check(seam: Seam, original: object, function: Callable[..., Any]) -> None:
    found = _form(original, function)
    if found != seam.form:
        raise DoesNotFit(f"a {found}, not a {seam.form}")
    parameters = list(inspect.signature(function).parameters)
    if seam.form != "static function":
        parameters = parameters[1:]
    if tuple(parameters[: len(seam.leading)]) != seam.leading:
        raise DoesNotFit(f"parameters do not begin with {', '.join(seam.leading)}")
    for keyword in seam.keywords:
        if keyword not in parameters:
            raise DoesNotFit(f"no parameter {keyword}")


def _form(original: object, function: Callable[..., Any]) -> Form:
    if isinstance(original, staticmethod):
        return "static function"
    if isinstance(original, classmethod):
        return "class function"
    bare = inspect.unwrap(function)
    if inspect.isasyncgenfunction(bare):
        return "async generator"
    if inspect.isgeneratorfunction(bare):
        return "generator"
    return "coroutine" if inspect.iscoroutinefunction(bare) else "function"
