"""What authors of hook plugins may rely on, as data: names, hooks, fields and their types.

``python -m tests.unit.public_api <file>`` writes down what it is now. The record of a release is
made once, from its sources, and never again; that of the next one whenever something is added.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from vllm_omni_metrics_plugin import hooks, testing
from vllm_omni_metrics_plugin.hooks import hookimpl

RECORDS = Path(__file__).parent / "data"
RELEASED = RECORDS / "api-0.1.json"
NEXT = RECORDS / "api-next.json"

Api = dict[str, Any]


def public_api() -> Api:
    """Of the package that is imported."""
    events: dict[str, type] = testing.EVENTS
    structs = dict(sorted((kind.__name__, kind) for kind in _with_parts(events.values())))
    return {
        "hooks": {hook: kind.__name__ for hook, kind in events.items()},
        "structs": {name: _struct(kind) for name, kind in structs.items()},
        "hookimpl": _parameters(hookimpl),
        "names": {
            module.__name__.partition(".")[2]: sorted(module.__all__) for module in (hooks, testing)
        },
        "functions": {
            f"testing.{name}": _parameters(vars(testing)[name])
            for name in testing.__all__
            if inspect.isfunction(vars(testing)[name])
        },
        "classes": {
            name: _methods(getattr(module, name))
            for module in (hooks, testing)
            for name in module.__all__
            if _is_class_to_use(getattr(module, name))
        },
    }


def write(file: Path) -> None:
    file.write_text(json.dumps(public_api(), indent=1, sort_keys=True) + "\n")


def read(file: Path) -> Api:
    api: Api = json.loads(file.read_text())
    return api


def _is_class_to_use(value: object) -> bool:
    return inspect.isclass(value) and not issubclass(value, (msgspec.Struct, tuple))


def _with_parts(kinds: Any) -> Iterator[type]:
    """Events, and the structs that their fields have in them."""
    for kind in kinds:
        yield kind
        for hint in get_type_hints(kind).values():
            yield from _with_parts(part for part in _types_in(hint) if _is_struct(part))


def _types_in(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in get_args(hint):
        if not isinstance(argument, str):
            yield from _types_in(argument)


def _is_struct(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, msgspec.Struct)


def _struct(kind: Any) -> dict[str, Any]:
    """Its fields and what is computed from them, with types; and what has to be given."""
    hints = get_type_hints(kind)
    computed = {
        name: type_of(get_type_hints(value.fget)["return"])
        for name, value in vars(kind).items()
        if isinstance(value, property)
    }
    fields = msgspec.structs.fields(kind)
    return {
        "fields": {field.name: type_of(hints[field.name]) for field in fields} | computed,
        "required": [field.name for field in fields if field.required],
    }


def type_of(hint: Any) -> str:
    """A type in one spelling, whatever Python and whatever module says it; words are quoted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        alternatives = [one for argument in arguments for one in type_of(argument).split(" | ")]
        return " | ".join(sorted(alternatives))
    if origin is Literal:
        return " | ".join(sorted(map(repr, arguments)))
    if hint in (None, NoneType):
        return "None"
    if hint is ...:
        return "..."
    name = getattr(origin or hint, "__name__", str(origin or hint))
    return f"{name}[{', '.join(map(type_of, arguments))}]" if arguments else str(name)


def _parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _methods(kind: Any) -> dict[str, list[str]]:
    """By name; an attribute that is no method has no parameters."""
    public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return {
        name: _parameters(value) if inspect.isfunction(value) else []
        for name, value in public.items()
        if not name.startswith("omni_")
    } | {"__init__": _parameters(kind.__init__)}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
