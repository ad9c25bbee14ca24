"""Makes the generated pages of docs/ from the code they describe: ``python -m testbed.pages``."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import runpy
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

from testbed.pages import bench, doctor, readme
from testbed.paths import ROOT
from vllm_omni_metrics_plugin import api_servers, catalog
from vllm_omni_metrics_plugin.hooks import Event, events, specs
from vllm_omni_metrics_plugin.tables import markdown
from vllm_omni_metrics_plugin.testing import EVENTS, HookHarness, make_event

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"

_MADE = "<!-- made by `python -m testbed.pages`; edit the code it describes instead -->\n"


def pages() -> dict[str, str]:
    """What each generated page has to say, by file name."""
    return {
        "hooks.md": hooks(),
        "families.md": families(),
        "variables.md": variables(),
        "bench.md": bench.page(_MADE),
        "doctor.md": doctor.render((DOCS / "doctor.md").read_text()),
    }


def hooks() -> str:
    parts = [
        "# Hooks\n",
        _MADE,
        "Each hook is a function with one argument, `event`; mark yours with `@hookimpl`, see",
        "[write-a-hook.md](write-a-hook.md) and [rules.md](rules.md). What it returns is not used.",
        "",
        _conventions(),
        "",
        *(f"- [{name}](#{name})" for name in EVENTS),
        "",
    ]
    for name, kind in EVENTS.items():
        spec = getattr(specs, name)
        parts += [
            f"## {name}\n",
            f"```python\n{name}(event: {kind.__name__}) -> None\n```\n",
            _markdown(inspect.getdoc(spec) or ""),
            "",
            f"`{kind.__name__}`: {_markdown(inspect.getdoc(kind) or '')}",
            "",
            markdown(("field", "type", "meaning"), _fields(kind)),
        ]
        fed = [f"`{f.stem}`" for f in catalog.FAMILIES if f.event == name]
        if fed:
            parts.append(f"Feeds {', '.join(fed)}.\n")
        parts += [f"```python\n{example(name)}```\n", f"prints\n\n```\n{output(name)}```\n"]
    return "\n".join(parts)


def families() -> str:
    parts = [
        "# Metric families\n",
        _MADE,
        f"All names begin with `{catalog.PREFIX}`; histograms show `_bucket`, `_sum` and `_count`.",
        "",
    ]
    for family in catalog.FAMILIES:
        parts += [f"## {family.stem}\n", family.help, ""]
        rows = [
            ("type", family.kind),
            ("unit", family.unit),
            ("labels", ", ".join(f"`{label}`" for label in family.labels)),
            ("from", f"[{family.event}](hooks.md#{family.event})" if _is_hook(family) else "hooks"),
            ("sample", family.formula),
        ]
        if family.buckets:
            rows.append(("buckets", " ".join(f"{bound:g}" for bound in family.buckets)))
        rows.append(("several API servers", api_servers.adding_up(family)))
        parts.append(markdown(("", ""), rows))
    return "\n".join(parts)


def variables() -> str:
    return "\n".join(
        [
            "# Environment variables\n",
            _MADE,
            readme.variables(),
            "A bad value is reported once, with the variable, the value and what is used instead.",
            "",
        ]
    )


def example(hook: str) -> str:
    """The source of a hook's example; raises FileNotFoundError where there is none yet."""
    return (EXAMPLES / f"{hook}.py").read_text()


def output(hook: str) -> str:
    """What the example prints when its hook is called with an ordinary event."""
    module = ModuleType(f"example_of_{hook}")
    vars(module).update(runpy.run_path(str(EXAMPLES / f"{hook}.py")))
    printed = io.StringIO()
    with HookHarness() as harness, contextlib.redirect_stdout(printed):
        harness.register(module)
        harness.fire(make_event(EVENTS[hook]))
    return printed.getvalue()


def blocks(page: str) -> dict[str, str]:
    """The fenced blocks of a page that have a file name, or else its language, by that."""
    fenced = r"^```(\w+) ?(\S*)\n(.*?)^```$"
    found = re.findall(fenced, (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return {name or language: body for language, name, body in found}


def comments(kind: type[Event]) -> dict[str, str]:
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


def _fields(kind: type[Event]) -> Iterable[tuple[str, str, str]]:
    said = comments(kind)
    for field in msgspec.structs.fields(kind):
        meaning = said.get(field.name) or COMMON_FIELDS.get(field.name, "")
        yield f"`{field.name}`", _type(kind, field.name), _markdown(meaning)


def _type(kind: type[Event], field: str) -> str:
    """As it is written, or the words that are possible where that has a name of its own."""
    hint = get_type_hints(kind)[field]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word!r}`" for word in get_args(hint))
    return _markdown(re.sub(r"\w+", _plain, str(kind.__annotations__[field])))


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
    "name": "The seam's name.",
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
    "streamed": "Whether the client was sent parts while the rest was being made.",
}


def _conventions() -> str:
    """What the module of the events says about all of them."""
    return _markdown("\n".join((inspect.getdoc(events) or "").splitlines()[2:]))


def _is_hook(family: catalog.Family) -> bool:
    return family.event in EVENTS


def _markdown(text: str) -> str:
    """A docstring's markup as the pages have it."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    for page, content in pages().items():
        Path(DOCS / page).write_text(content)
    readme.README.write_text(readme.render(readme.README.read_text()))
