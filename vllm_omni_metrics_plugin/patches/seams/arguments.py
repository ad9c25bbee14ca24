"""Giving an engine's function another value for one argument, however the caller passes it."""

from __future__ import annotations

import inspect
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
