"""The arguments of an engine's function by name, however the caller passes them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def replacing(function: Callable[..., Any], name: str) -> Callable[..., Arguments]:
    """Makes ``replace(value, *args, **kwargs)``: the arguments with ``name`` set to ``value``.

    Arguments that do not fit the function come back as they are: it says so better itself.
    """
    signature = inspect.signature(function)

    def replace(value: object, /, *args: Any, **kwargs: Any) -> Arguments:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return args, kwargs
        bound.arguments[name] = value
        return bound.args, bound.kwargs

    return replace


def reading(function: Callable[..., Any], *names: str) -> Callable[..., tuple[Any, ...]]:
    """Makes ``read(*args, **kwargs)``: the values of ``names`` in a call, None for one not given.

    A wrapper that takes only what it reads, and hands on the call as it came, keeps the engine's
    own defaults and whatever a later release adds.
    """
    parameters = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    places = [(n, parameters.index(n) if n in parameters else sys.maxsize) for n in names]

    def read(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        given = len(args)
        return tuple(args[place] if place < given else kwargs.get(name) for name, place in places)

    return read
