"""The hooks: as one table, and as a section each with an example that runs."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import runpy
from collections.abc import Iterable
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

from testbed.pages.markup import in_page
from testbed.paths import ROOT
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin import hooks as public
from vllm_omni_metrics_plugin.hooks import Event, events, specs
from vllm_omni_metrics_plugin.hooks.since import since
from vllm_omni_metrics_plugin.tables import markdown
from vllm_omni_metrics_plugin.testing import EVENTS, HookHarness, make_event, speech_request

EXAMPLES = ROOT / "docs" / "examples"
#: What events have in their fields.
PARTS: list[type[msgspec.Struct]] = [
    kind
    for kind in map(vars(public).get, public.__all__)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not issubclass(kind, Event)
]


def conventions() -> str:
    """What the module of the events says about all of them."""
    return in_page("\n".join((inspect.getdoc(events) or "").splitlines()[2:]))


def hooks() -> str:
    rows = (
        (f"[`{name}(event)`](#{name})", f"`{kind.__name__}`", _summary(name))
        for name, kind in EVENTS.items()
    )
    return markdown(("hook", "event", "called when"), rows)


def sections() -> str:
    return "\n".join(_section(name, kind) for name, kind in EVENTS.items())


def parts() -> str:
    """What the fields of several events are made of."""
    return "\n".join(_part(kind) for kind in PARTS)


def example(hook: str) -> str:
    """The source of a hook's example; raises FileNotFoundError where there is none yet."""
    return (EXAMPLES / f"{hook}.py").read_text()


def output(hook: str) -> str:
    """What the example prints when its hook is called with an event of ordinary speech."""
    module = ModuleType(f"example_of_{hook}")
    vars(module).update(runpy.run_path(str(EXAMPLES / f"{hook}.py")))
    printed = io.StringIO()
    with HookHarness() as harness, contextlib.redirect_stdout(printed):
        harness.register(module)
        told = (event for event in speech_request() if type(event) is EVENTS[hook])
        harness.fire(next(told, None) or make_event(EVENTS[hook]))
    return printed.getvalue()


def comments(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the ``#:`` comments above an event's fields say, by field."""
    source = inspect.getsource(kind).splitlines()
    body = ast.parse("\n".join(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            above: list[str] = []
            line = statement.lineno - 2
            while source[line].strip().startswith("#:"):
                above.insert(0, source[line].strip().removeprefix("#:").strip())
                line -= 1
            found[statement.target.id] = " ".join(above)
    return found


def _called_when(hook: str) -> str:
    return in_page(inspect.getdoc(getattr(specs, hook)) or "")


def _used_for(hook: str) -> str:
    used_for: str = getattr(getattr(specs, hook), specs.USED_FOR)
    return f"People use it for: {used_for[:1].lower()}{used_for[1:]}\n\n" if used_for else ""


def _summary(hook: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(_called_when(hook).partition("\n\n")[0].split()).rstrip(".")


def _section(hook: str, kind: type[Event]) -> str:
    parts = [
        f"### {hook}\n",
        f"```python\n{hook}(event: {kind.__name__}) -> None\n```\n",
        f"{_called_when(hook)}\n\n{_used_for(hook)}Since {since(hook)}.",
        "",
        f"`{kind.__name__}`: {in_page(inspect.getdoc(kind) or '')}",
        "",
        markdown(("field", "type", "meaning"), _fields(hook, kind)),
    ]
    computed = [f"- `{name}`: {meaning}\n" for name, meaning in _properties(kind)]
    if computed:
        parts.append(f"Computed from these:\n\n{''.join(computed)}")
    fed = [f"`{f.stem}`" for f in catalog.FAMILIES if f.event == hook]
    if fed:
        parts.append(f"Feeds {', '.join(fed)}.\n")
    parts += [f"```python\n{example(hook)}```\n", f"prints\n\n```\n{output(hook)}```\n"]
    return "\n".join(parts)


def _fields(hook: str, kind: type[Event]) -> Iterable[tuple[str, str, str]]:
    for name, shown, meaning in _rows(kind):
        came = since(hook, name)
        newer = f" Since {came}." if came != since(hook) else ""
        yield f"`{name}`", shown, meaning + newer


def _part(kind: type[msgspec.Struct]) -> str:
    fields = ((f"`{name}`", shown, meaning) for name, shown, meaning in _rows(kind))
    text = [
        f"### {kind.__name__}\n",
        f"{in_page(inspect.getdoc(kind) or '')}\n",
        markdown(("field", "type", "meaning"), fields),
    ]
    computed = [f"- `{name}`: {meaning}\n" for name, meaning in _properties(kind)]
    if computed:
        text.append(f"Computed from these:\n\n{''.join(computed)}")
    return "\n".join(text)


def _rows(kind: type[msgspec.Struct]) -> Iterable[tuple[str, str, str]]:
    """Name, type and meaning of each field."""
    own = comments(kind)
    for field in msgspec.structs.fields(kind):
        meaning = own.get(field.name) or COMMON_FIELDS.get(field.name, "")
        yield field.name, _type(kind, field.name), in_page(meaning)


def _properties(kind: type[msgspec.Struct]) -> Iterable[tuple[str, str]]:
    for name, value in vars(kind).items():
        if isinstance(value, property):
            yield name, in_page(" ".join((inspect.getdoc(value) or "").split()))


def _type(kind: type[msgspec.Struct], field: str) -> str:
    """As it is written, or the words that are possible where that has a name of its own."""
    hint = get_type_hints(kind)[field]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word!r}`" for word in get_args(hint))
    return in_page(re.sub(r"\w+", _plain, str(kind.__annotations__[field])))


def _plain(name: re.Match[str]) -> str:
    """The type behind the names that events of other processes are checked by."""
    checked = {"Number": "int", "Bytes": "int", "Seconds": "float", "Text": "str"}
    return checked.get(name[0], name[0])


#: Fields that mean the same in every event.
COMMON_FIELDS = {
    "request_id": "The engine's internal id: unique, shared by all events of one request.",
    "model_name": "The name under which the model is served.",
    "stage": "The stage's number, from 0.",
    "replica": "The replica's number within its stage.",
    "name": "The patch's name.",
    "session_id": "The engine's id of the session; unique.",
    "turn_id": "The engine's id of the response; unique.",
    "origin": "What was waited for an answer to.",
    "deferred": "It waited for an earlier answer to be complete, as the session's policy has it.",
    "opened_at": "Monotonic seconds.",
    "started_at": "Monotonic seconds.",
    "arrived_at": "Monotonic seconds.",
    "submitted_at": "Monotonic seconds.",
    "finished_at": "Monotonic seconds.",
    "left_at": "Monotonic seconds.",
    "modality": "What kind of media.",
    "since_arrival_seconds": "Arrival to this packet.",
    "from_stage": "The sending stage's number.",
    "to_stage": "The receiving stage's number.",
    "key": "What the connector calls the payload; unique while it is under way.",
    "connector": "The connector's class.",
    "clock": "Times are comparable between processes that name the same clock.",
    "images": "How many.",
    "videos": "How many.",
    "diffusion": "Steps and timings of the diffusion engine, as `StageFinished` has them.",
    "tokens_out": "Tokens that the stage generated for the request.",
    "settings": "What the operator asked for, after validation.",
    "streamed": "Whether the client received parts while the rest was being made.",
}
