"""The registry of hook plugins and the marks of their authors, from their own docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from testbed.pages.markup import in_page
from vllm_omni_metrics_plugin.hooks import HookRegistry, HookStats, hookimpl, hookplugin
from vllm_omni_metrics_plugin.tables import markdown


def methods() -> str:
    return "\n".join(_section(f"plugins.{name}", member) for name, member in public(HookRegistry))


def stats() -> str:
    source = inspect.getsource(HookStats).splitlines()
    rows = []
    for number, line in enumerate(source):
        name, colon, kind = line.strip().partition(": ")
        if colon and name in HookStats._fields:
            above = source[number - 1].strip()
            meaning = above.removeprefix("#:").strip() if above.startswith("#:") else f"The {name}."
            rows.append((f"`{name}`", kind, in_page(meaning)))
    return markdown(("field", "type", "meaning"), rows)


def marks() -> str:
    return "\n".join(_section(mark.__name__, mark) for mark in (hookimpl, hookplugin))


def public(kind: type) -> Iterator[tuple[str, Any]]:
    """What users call; the earlier names of a renamed one are left out."""
    for name, member in vars(kind).items():
        earlier = (inspect.getdoc(member) or "").startswith("The earlier name")
        if not name.startswith("_") and not earlier:
            yield name, member


def _section(name: str, member: Any) -> str:
    shown = name if isinstance(member, property) else f"{name}{_signature(member)}"
    about = in_page(inspect.getdoc(member) or "")
    return f"### {name}\n\n```python\n{shown}\n```\n\n{about}\n"


def _signature(function: Callable[..., object]) -> str:
    """As it is written, without ``self``."""
    whole = inspect.signature(function)
    parameters = [p for p in whole.parameters.values() if p.name not in ("self", "function")]
    return str(whole.replace(parameters=parameters)).replace("'", "")
