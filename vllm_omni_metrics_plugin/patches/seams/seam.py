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

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks.events import Role
from vllm_omni_metrics_plugin.patches.seams import releases
from vllm_omni_metrics_plugin.patches.seams.switch import Switch

Form = Literal[
    "function",
    "generator",
    "coroutine",
    "async generator",
    "static function",
    "class function",
]
#: Makes the wrapper of a function; the second argument is what all patches of the process share.
Wrap = Callable[[Callable[..., Any], Any], Callable[..., Any]]

#: Among the families that a seam feeds: all that vLLM's own stat logger makes.
ENGINE_FAMILIES = "vllm:*"

#: Set on our wrappers, with the seam's name.
MARK = "__omni_metrics_seam__"
#: Set on our wrappers, with the :class:`AppliedSeam`. Whoever wraps ours with ``functools.wraps``
#: carries it on, and so tells that ours is beneath.
_APPLIED = "__omni_metrics_applied__"


class SeamMismatchError(Exception):
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
    #: What has no samples without this seam: names of hooks, for all families that their events
    #: feed, and stems of single families.
    feeds: tuple[str, ...]
    #: Stems of families that an event of ``feeds`` feeds, and that need another seam instead.
    without: tuple[str, ...] = ()
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
    def families(self) -> tuple[str, ...]:
        """The families that have no samples without this seam; those of the catalogue by stem."""
        stems = (family.stem for family in catalog.FAMILIES if self._feeds(family))
        others = (n for n in self.feeds if n not in catalog.BY_STEM and not n.startswith("omni_"))
        return (*stems, *others)

    def _feeds(self, family: catalog.Family) -> bool:
        by_event = family.event in self.feeds and not family.is_own
        return family.stem in self.feeds or (by_event and family.stem not in self.without)

    @property
    def target(self) -> str:
        return f"{self.module}:{self.attribute}"


class AppliedSeam:
    """A wrapper in place, and how to take it out again."""

    def __init__(
        self, seam: Seam, owner: type, method: str, original: object, switch: Switch
    ) -> None:
        self.name = seam.name
        self.switch = switch
        self._owner = owner
        self._method = method
        self._original = original
        self._placed: object = None

    def place(self, placed: object) -> None:
        """Put ``placed``, which calls what the switch says, where the original is."""
        self._placed = placed
        setattr(self._owner, self._method, placed)

    def revert(self) -> bool:
        """Count nothing any more, and put the original back.

        False if somebody wrapped our wrapper since then: it then stays and passes every call on.
        """
        self.switch.off()
        if self._owner.__dict__.get(self._method) is not self._placed:
            return False
        setattr(self._owner, self._method, self._original)
        return True


#: By seam, the last one that was applied. The others of its name may be hidden beneath a wrapper
#: that does not tell what it wraps; as they are switched off, nothing is counted twice.
_last: dict[str, AppliedSeam] = {}


def apply(seam: Seam, state: object) -> AppliedSeam | None:
    """Wrap the seam in its imported module; None if it is wrapped already.

    ``state`` is handed to the seam's ``wrap``.

    Raises :class:`SeamMismatchError` and leaves the engine as it was.
    """
    owner, method = find(seam)
    original = owner.__dict__[method]
    kind = type(original) if isinstance(original, (staticmethod, classmethod)) else None
    function = original.__func__ if kind is not None else original
    earlier = _applied_beneath(function, seam)
    if earlier is not None:
        return None if earlier.switch.is_on else _counting(earlier)
    _check(seam, original, function)
    switch = Switch(seam.wrap(function, state), function)
    applied = AppliedSeam(seam, owner, method, original, switch)
    wrapper = switch.function()
    setattr(wrapper, MARK, seam.name)
    setattr(wrapper, _APPLIED, applied)
    _counting(applied).place(wrapper if kind is None else kind(wrapper))
    return applied


def _counting(applied: AppliedSeam) -> AppliedSeam:
    """Let this one count, and no other of its name."""
    last = _last.get(applied.name)
    if last is not None:
        last.switch.off()
    _last[applied.name] = applied
    applied.switch.on()
    return applied


def find(seam: Seam) -> tuple[type, str]:
    """The class that defines the method, and the method's name; raises SeamMismatchError."""
    class_name, method = seam.attribute.split(".")
    cls = getattr(sys.modules[seam.module], class_name, None)
    if not isinstance(cls, type):
        raise SeamMismatchError(f"no class {class_name}")
    for owner in cls.__mro__[:-1]:  # not what every object has
        if method in owner.__dict__:
            return owner, method
    raise SeamMismatchError(f"no method {seam.attribute}")


def _applied_beneath(function: Any, seam: Seam) -> AppliedSeam | None:
    """Our wrapper of this seam, if it is there and whoever wrapped it tells."""
    while function is not None:
        applied: AppliedSeam | None = getattr(function, "__dict__", {}).get(_APPLIED)
        if applied is not None and applied.name == seam.name:
            return applied
        function = getattr(function, "__wrapped__", None)
    return None


def _check(seam: Seam, original: object, function: Callable[..., Any]) -> None:
    found = _form(original, function)
    if found != seam.form:
        raise SeamMismatchError(f"a {found}, not a {seam.form}")
    parameters = list(inspect.signature(function).parameters)
    if seam.form != "static function":
        parameters = parameters[1:]
    if tuple(parameters[: len(seam.leading)]) != seam.leading:
        raise SeamMismatchError(f"parameters do not begin with {', '.join(seam.leading)}")
    for keyword in seam.keywords:
        if keyword not in parameters:
            raise SeamMismatchError(f"no parameter {keyword}")


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
