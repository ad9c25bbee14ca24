"""How authors mark implementations of hooks: one by one, or a whole class of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar, get_args, overload

from pluggy import HookimplMarker

from vllm_omni_metrics_plugin.hooks import checks
from vllm_omni_metrics_plugin.hooks.specs import PROJECT

#: The processes in which hooks are called; each is the ``role`` of its ``Configured`` event.
Process = Literal["server", "stage_engine", "worker"]
PROCESSES: tuple[Process, ...] = get_args(Process)
#: Where an implementation is called that asks for nothing else.
SERVER: tuple[Process, ...] = ("server",)

Function = TypeVar("Function", bound=Callable[..., object])
Class = TypeVar("Class", bound=type)

_mark = HookimplMarker(PROJECT)
#: What an implementation asks for by itself, and what a class asks for of its implementations.
_OPTIONS = f"{PROJECT}_options"
_OPTIONS_OF_CLASS = f"{PROJECT}_options_of_class"


class Options(NamedTuple):
    """How one implementation is to be called; None where nothing was said."""

    slow: bool | None = None
    processes: tuple[Process, ...] | None = None


@overload
def hookimpl(function: Function, /) -> Function: ...


@overload
def hookimpl(
    *,
    slow: bool | None = ...,
    processes: Process | Iterable[Process] | None = ...,
    specname: str | None = ...,
    optionalhook: bool = ...,
    tryfirst: bool = ...,
    trylast: bool = ...,
) -> Callable[[Function], Function]: ...


def hookimpl(
    function: Function | None = None,
    /,
    *,
    slow: bool | None = None,
    processes: Process | Iterable[Process] | None = None,
    specname: str | None = None,
    optionalhook: bool = False,
    tryfirst: bool = False,
    trylast: bool = False,
) -> Function | Callable[[Function], Function]:
    """Mark a function as the implementation of the hook whose name it has.

    ``slow``: call it on a thread of its own, behind a bounded queue; for whatever writes to disks
    or networks. ``processes``: where it is called, one or several of ``server``, ``stage_engine``
    and ``worker``; the server alone by default. ``specname``: the hook's name, where the function
    has another one. ``optionalhook``: do without it where this version has no such hook.
    ``tryfirst``, ``trylast``: before, after the other plugins' implementations. Raises ValueError
    for a process that there is not.
    """
    options = Options(slow, _checked(processes))

    def mark(implementation: Function) -> Function:
        _mark(
            implementation,
            specname=specname,
            optionalhook=optionalhook,
            tryfirst=tryfirst,
            trylast=trylast,
        )
        setattr(implementation, _OPTIONS, options)
        return implementation

    return mark if function is None else mark(function)


def hookplugin(
    *,
    slow: bool | None = None,
    processes: Process | Iterable[Process] | None = None,
) -> Callable[[Class], Class]:
    """Say for a whole class what its ``@hookimpl`` methods do not say for themselves.

    ``slow`` and ``processes`` are those of :func:`hookimpl`. Raises ValueError for a process that
    there is not.
    """
    options = Options(slow, _checked(processes))

    def mark(plugin: Class) -> Class:
        setattr(plugin, _OPTIONS_OF_CLASS, options)
        return plugin

    return mark


def options_of(plugin: object, function: object) -> Options:
    """What an implementation asks for, or else its plugin's class."""
    own = _said(function, _OPTIONS)
    general = _said(plugin if isinstance(plugin, type) else type(plugin), _OPTIONS_OF_CLASS)
    return Options(
        general.slow if own.slow is None else own.slow,
        general.processes if own.processes is None else own.processes,
    )


def implementations(plugin: object) -> Iterator[tuple[str, Callable[..., object], Options]]:
    """Everything of a plugin that :func:`hookimpl` has marked, by its name."""
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        if callable(function) and isinstance(getattr(function, _OPTIONS, None), Options):
            yield name, function, options_of(plugin, function)


def _said(by: object, attribute: str) -> Options:
    said = getattr(by, attribute, None)
    return said if isinstance(said, Options) else Options()  # some objects have every attribute


def _checked(processes: Any) -> tuple[Process, ...] | None:
    if processes is None:
        return None
    named = (processes,) if isinstance(processes, str) else tuple(processes)
    for name in named:
        if name not in PROCESSES:
            near = checks.nearest(str(name), PROCESSES) or f"; there are {', '.join(PROCESSES)}"
            raise ValueError(f"there is no process {name!r}{near}")
    if not named:
        raise ValueError(f"processes is empty; name one or more of {', '.join(PROCESSES)}")
    return named
