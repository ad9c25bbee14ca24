"""Whether a plugin's implementations can be called, and what its author should write instead."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pluggy


def problems(manager: pluggy.PluginManager, plugin: object, hooks: Sequence[str]) -> list[str]:
    """A sentence for each implementation that cannot be called; empty when all is well."""
    found = []
    for name, function, options in implementations(manager, plugin):
        hook = options["specname"] or name
        if hook not in hooks:
            if not options["optionalhook"]:
                found.append(f"there is no hook {hook}{nearest(hook, hooks)}")
            continue
        problem = _problem(name, function, options, plugin)
        if problem:
            found.append(problem)
    return found


def unmarked(manager: pluggy.PluginManager, plugin: object, hooks: Sequence[str]) -> list[str]:
    """Functions that are called like a hook and are no implementation of it."""
    marked = {name for name, _, _ in implementations(manager, plugin)}
    return [hook for hook in hooks if hook not in marked and callable(getattr(plugin, hook, None))]


def instead(manager: pluggy.PluginManager, plugin: object) -> str:
    """What a module without implementations may have meant: an instance of a class in it."""
    if not inspect.ismodule(plugin):
        return ""
    for name, value in vars(plugin).items():
        of_its_own = inspect.isclass(value) and value.__module__ == plugin.__name__
        if of_its_own and any(implementations(manager, value)):
            return (
                f"; its class {name} does: make an instance of it in the module, and name that "
                "(module:instance, file.py:instance)"
            )
    return ""


def names_stages(function: Callable[..., object]) -> bool:
    """Whether a function's code has the name of a process of the stages in it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    constants = code.co_consts if code is not None else ()
    words = {word for found in constants for word in (found if _is_group(found) else (found,))}
    return not words.isdisjoint(("stage_engine", "worker"))


def nearest(name: str, names: Sequence[str]) -> str:
    """``; did you mean ...?``, or nothing when no name is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def implementations(
    manager: pluggy.PluginManager, plugin: object
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The name, the function and pluggy's options of everything that is marked."""
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            yield name, getattr(plugin, name), {"specname": None, "optionalhook": False, **options}


def _is_group(constant: object) -> bool:
    return isinstance(constant, (tuple, frozenset))


def _problem(name: str, function: Any, options: dict[str, Any], plugin: object) -> str | None:
    if options.get("wrapper") or options.get("hookwrapper"):
        return f"{name} is a wrapper; hooks can be implemented, not wrapped"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return (
            f"{name} is async, and hooks are called, not awaited; write a plain function, and mark "
            "it @hookimpl(slow=True) if it waits for something"
        )
    if inspect.isgeneratorfunction(function):
        return f"{name} is a generator function (it has a yield), which would never run"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return f"{name} has no signature to look at; write a plain function"
    required = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required == ["event"] and next(iter(signature.parameters)) == "event":
        return None
    if inspect.isclass(plugin) and required[1:] == ["event"]:
        return f"{name} is a method of the class {plugin.__name__}; register an instance of it"
    return f"{name}{signature} does not fit; a hook takes one argument of this name: {name}(event)"
