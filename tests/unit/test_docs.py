"""The documentation is complete, is what the code says, and does what it shows."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from testbed.pages import families, hooks
from testbed.pages.fences import blocks
from testbed.pages.places import DOCS, PLACES, README, render
from testbed.paths import ROOT
from vllm_omni_metrics_plugin import catalog, settings
from vllm_omni_metrics_plugin.hooks import (
    HookRegistry,
    RequestFinished,
    StageStarted,
    hookimpl,
    hookplugin,
    plugins,
    specs,
)
from vllm_omni_metrics_plugin.hooks.listener import BLOCKED_SECONDS, FAULTS_IN_A_ROW
from vllm_omni_metrics_plugin.hooks.since import since
from vllm_omni_metrics_plugin.hooks.worker import CAPACITY
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.testing import EVENTS, HookHarness, make_event, speech_request

#: Every page of the repository; not what is installed or generated beside it.
PAGES = sorted(
    {*ROOT.glob("*.md")}.union(
        *(
            (ROOT / folder).rglob("*.md")
            for folder in ("deploy", "docs", "examples", "testbed", "tests")
        )
    )
)
#: About the internals, where a place to patch has its own word.
INTERNALS = {ROOT / "CONTRIBUTING.md", DOCS / "explanation" / "architecture.md"}
HINT = "run `python -m testbed.pages`"

REFERENCE = DOCS / "reference"


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


def section(page: Path, title: str) -> str:
    """The text under one heading of a page, down to the next one that is not below it."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", page.read_text(), re.MULTILINE)
    assert found is not None, f"{label(page)} has no section {title}; {HINT}"
    rest = page.read_text()[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def prose(text: str) -> str:
    """The text without fenced blocks, whose lines are left empty."""
    blank = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    return blank.sub(lambda block: "\n" * block[0].count("\n"), text)


# What is generated


@pytest.mark.parametrize("page", PLACES, ids=label)
def test_generated_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == render(page), HINT


def test_every_generated_part_is_in_one_page() -> None:
    parts = Counter(
        f"{part.__module__}.{part.__name__}" for parts in PLACES.values() for part in parts
    )
    assert [part for part, pages in parts.items() if pages > 1] == []
    for page in PAGES:
        begun = re.findall(r"^<!-- (?!end of )(\w+) -->$", page.read_text(), re.MULTILINE)
        assert begun == [part.__name__ for part in PLACES.get(page, ())], label(page)


@pytest.mark.parametrize("hook", EVENTS)
def test_every_hook_has_its_section_with_signature_and_example(hook: str) -> None:
    text = section(REFERENCE / "hooks.md", hook)
    assert f"{hook}(event: {EVENTS[hook].__name__}) -> None" in text, HINT
    assert f"```python\n{hooks.example(hook)}```" in text, HINT


@pytest.mark.parametrize("hook", EVENTS)
def test_every_example_implements_its_hook_and_prints_what_the_page_shows(hook: str) -> None:
    functions = [
        n for n in ast.walk(ast.parse(hooks.example(hook))) if isinstance(n, ast.FunctionDef)
    ]
    assert [function.name for function in functions] == [hook]
    printed = hooks.output(hook)
    assert printed.strip(), "an example shows something"
    assert f"```\n{printed}```" in section(REFERENCE / "hooks.md", hook), HINT


def test_there_is_no_example_of_a_hook_that_is_gone() -> None:
    assert {path.stem for path in hooks.EXAMPLES.glob("*.py")} == set(EVENTS)


@pytest.mark.parametrize("hook", EVENTS)
def test_every_event_field_has_its_meaning(hook: str) -> None:
    text = section(REFERENCE / "hooks.md", hook)
    shown = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*) \|$", text, re.MULTILINE)
    meanings = {name: meaning.strip() for name, _, meaning in shown}
    fields = [field.name for field in msgspec.structs.fields(EVENTS[hook])]
    assert list(meanings) == fields, HINT
    silent = [name for name, meaning in meanings.items() if not meaning]
    assert silent == [], "write a `#:` comment above the field in hooks/events"


@pytest.mark.parametrize("kind", hooks.PARTS, ids=lambda kind: kind.__name__)
def test_every_field_of_an_events_parts_has_its_meaning(kind: Any) -> None:
    text = section(REFERENCE / "hooks.md", kind.__name__)
    shown = re.findall(r"^\| `(\w+)` \| .+ \| (.*) \|$", text, re.MULTILINE)
    assert [name for name, _ in shown] == list(kind.__struct_fields__), HINT
    assert [name for name, meaning in shown if not meaning.strip()] == []


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_every_family_has_its_section(family: catalog.Family) -> None:
    text = section(REFERENCE / "families.md", family.stem)
    assert family.help in text, HINT
    assert family.formula in text
    assert all(f"`{name}`" in text for name in family.labels)


@pytest.mark.parametrize("variable", settings.VARIABLES, ids=lambda variable: variable.name)
def test_every_variable_is_explained(variable: settings.Variable) -> None:
    assert f"| `{variable.name}` |" in (REFERENCE / "variables.md").read_text(), HINT


def test_every_variable_that_the_code_reads_is_a_documented_one() -> None:
    known = {variable.name.partition("<")[0] for variable in settings.VARIABLES}
    read = set()
    for path in (ROOT / "vllm_omni_metrics_plugin").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                read |= set(re.findall(r"VLLM_OMNI_METRICS\w*", node.value))
    assert {name for name in read if name not in known} <= {
        name for name in read if name.startswith(settings.BUCKETS_PREFIX)
    }


def test_options_of_hookimpl_are_explained() -> None:
    rules = (REFERENCE / "hook-rules.md").read_text()
    for function in (hookimpl, hookplugin, plugins.register):
        options = inspect.signature(function).parameters.values()
        names = [option.name for option in options if option.kind is option.KEYWORD_ONLY]
        assert names
        for name in names:
            assert name in rules or name == "specname", name


def test_rules_name_the_limits_that_the_code_has() -> None:
    rules = (REFERENCE / "hook-rules.md").read_text()
    words = {10: "ten times in a row", 0.5: "half a second"}
    for text in (words[FAULTS_IN_A_ROW], words[BLOCKED_SECONDS], f"{CAPACITY:,} wait"):
        assert text in rules


# Tables


def cells(row: str) -> list[str]:
    """A pipe divides cells unless it is escaped, within code too."""
    return re.split(r"(?<!\\)\|", row.strip())[1:-1]


def tables(text: str) -> Iterator[list[str]]:
    """The lines of each table, with whatever else stands in its paragraph but comments."""
    for paragraph in re.split(r"\n\s*\n", prose(text)):
        lines = [line for line in paragraph.splitlines() if not line.startswith("<!--")]
        if any(line.lstrip().startswith("|") for line in lines):
            yield lines


def faults_of(table: list[str]) -> Iterator[str]:
    header, *rows = table
    if not rows or not all(re.fullmatch(r"\s*:?-+:?\s*", cell) for cell in cells(rows[0])):
        yield f"no separator beneath {header}"
    for row in table:
        if not (row.startswith("|") and row.endswith("|") and not row.endswith("\\|")):
            yield f"no row of a table: {row}"
        elif len(cells(row)) != len(cells(header)):
            yield f"{len(cells(row))} cells beneath {len(cells(header))}: {row}"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_table_is_one(page: Path) -> None:
    assert [fault for table in tables(page.read_text()) for fault in faults_of(table)] == []


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n| --- | --- |\nWARNING: captured\n| 1 | 2 |",
        "| a | b |\n| --- | --- |\n| 1 |",
        "| a | b |\n| --- | --- |\n| 1 | `x|y` |",
        "| a | b |\n| 1 | 2 |",
        "| a | b |\n| --- |\n| 1 | 2 |",
        "above\n| a |\n| --- |\n| 1 |",
    ],
)
def test_broken_table_is_found(text: str) -> None:
    assert [fault for table in tables(text) for fault in faults_of(table)]


def test_whole_table_is_not_taken_for_a_broken_one() -> None:
    rows = "| a | b |\n| :-- | --- |\n| 1 | `x\\|y` |"
    text = f"<!-- x -->\n{rows}\n<!-- end of x -->\n\n```\n| no\n```"
    assert [fault for table in tables(text) for fault in faults_of(table)] == []


# Links


def links(text: str) -> set[str]:
    """The targets of inline links and of link definitions."""
    plain = re.sub(r"`[^`\n]*`", "``", prose(text))
    inline = re.findall(r"\]\(([^)\s]+)\)", plain)
    return {*inline, *re.findall(r"^\[[^\]]+\]: (\S+)$", plain, re.MULTILINE)}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the places that render it make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_text_refers_to_no_link_that_is_not_defined(page: Path) -> None:
    plain = re.sub(r"`[^`\n]*`", "``", prose(page.read_text()))
    defined = {name.lower() for name in re.findall(r"^\[([^\]]+)\]: ", plain, re.MULTILINE)}
    named = re.findall(r"\[([^\]]+)\]\[([^\]]*)\]", plain)
    assert {(name or text).lower() for text, name in named} <= defined
    if page == README:
        alone = re.findall(r"(?<!\])\[([^\]]+)\](?![\[(:])", plain)
        assert {name.lower() for name in alone} <= defined


def repository() -> str:
    """Its address, which stands in the package's metadata."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^\[project\.urls\]$[^\[]*?^Repository = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def test_links_of_the_readme_work_on_a_package_index_too() -> None:
    """There nothing of the repository is beside it: each link is whole, and names a file."""
    base = f"{repository()}/blob/main/"
    text = README.read_text()
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", text))
    found = links(text)
    assert found - shown
    assert shown
    for link in found:
        # Pictures are shown as they are, not within a page about them.
        start = base.replace("/blob/", "/raw/") if link in shown else base
        assert link.startswith(start), link
        assert (ROOT / link.removeprefix(start)).is_file(), link


def test_pictures_are_small() -> None:
    pictures = [*(DOCS / "images").iterdir()]
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 250_000] == []


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_other_links_to_the_repository_begin_as_the_package_says(page: Path) -> None:
    for link in links(page.read_text()):
        if "vllm-omni-metrics-plugin" in link and link.startswith("https://"):
            assert link.startswith(f"{repository()}/"), link


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_files_that_a_page_names_exist(page: Path) -> None:
    tops = ("vllm_omni_metrics_plugin", "testbed", "tests", "docs", "deploy", "examples")
    named = re.findall(rf"`((?:{'|'.join(tops)})/[\w./-]*)`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


# The README


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 110


@pytest.mark.parametrize("answer", ["pip install", "TTFP", "0.26", "production"])
def test_readme_answers_the_first_questions_in_its_first_screen_and_a_half(answer: str) -> None:
    assert answer in "\n".join(README.read_text().splitlines()[:60])


def test_readme_has_the_eight_families_that_people_alert_on() -> None:
    assert len(families.ALERTS) == 8
    table = README.read_text().partition("<!-- alerts -->")[2].partition("<!-- end of")[0]
    assert re.findall(r"`([\w:]+)`", table) == [
        catalog.BY_STEM[stem].name for stem in families.ALERTS
    ]


def test_readme_names_every_engine_release_and_those_that_are_tested_end_to_end() -> None:
    text = section(README, "Does it work with my engine?")
    minors = [release.version.rpartition(".")[0] for release in RELEASES]
    end_to_end = [r.version.rpartition(".")[0] for r in RELEASES if r.tested == "end to end"]
    supported, tested, *_ = re.split(r"(?<=\d)\. ", text)
    assert re.findall(r"\d\.\d+", supported) == minors
    assert re.findall(r"\d\.\d+", tested) == end_to_end


def test_hook_of_the_readme_runs(
    omni_hooks: HookHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    source = blocks(README)["python"]
    assert len(source.strip().splitlines()) <= 10
    module = ModuleType("slow_starts")
    exec(source, vars(module))
    omni_hooks.register(module)
    omni_hooks.fire(*speech_request(first_packet_seconds=0.75))
    assert re.fullmatch(r"request-1\S* waited 0\.75 s\n", capsys.readouterr().out)
    omni_hooks.fire(*speech_request(first_packet_seconds=0.25))
    assert capsys.readouterr().out == ""


def test_page_of_plugins_prints_what_it_shows() -> None:
    shown = blocks(REFERENCE / "plugins.md")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(shown["plugins.py"], {"__name__": "plugins"})
    assert printed.getvalue() == shown["text"]


@pytest.mark.parametrize("marked", [hookimpl, hookplugin], ids=lambda marked: marked.__name__)
def test_page_of_plugins_has_the_marks(marked: Any) -> None:
    assert f"{marked.__name__}(*, slow" in section(REFERENCE / "plugins.md", marked.__name__)


@pytest.mark.parametrize("name", [name for name in dir(HookRegistry) if not name.startswith("_")])
def test_page_of_plugins_has_everything_that_is_public_but_earlier_names(name: str) -> None:
    text = (REFERENCE / "plugins.md").read_text()
    assert (f"\n### plugins.{name}\n" in text) == (name != "accounts"), HINT


def _module_of(page: Path, name: str) -> ModuleType:
    module = ModuleType(name.removesuffix(".py"))
    exec(blocks(page)[name], vars(module))
    return module


def test_plugin_for_two_versions_works_with_this_one(
    omni_hooks: HookHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    module = omni_hooks.register(_module_of(REFERENCE / "hook-rules.md", "two_versions.py"))
    failed = make_event(RequestFinished, outcome="error", failure="stage_error")
    omni_hooks.fire(failed, make_event(StageStarted))
    assert capsys.readouterr().out == f"{failed.request_id} stage_error\n"
    assert module.started == 1


def test_plugin_for_two_versions_works_without_what_came_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    came = {name: since(name) for name in EVENTS}
    for name in [name for name, version in came.items() if version != "0.1"]:
        monkeypatch.delattr(specs, name)
    registry = HookRegistry(on_error=_raise)
    assert not hasattr(registry.hooks, "omni_stage_started")
    registry.register(_module_of(REFERENCE / "hook-rules.md", "two_versions.py"))
    registry.hooks.omni_request_finished(_EventOf01("error"))  # type: ignore[arg-type]
    assert capsys.readouterr().out == "a failed\n"


class _EventOf01(NamedTuple):
    """As much of it as the plugin looks at."""

    outcome: str
    request_id: str = "a"


def _raise(error: BaseException) -> None:
    raise error


def test_examples_touch_nothing_private_of_prometheus_client() -> None:
    """What an author copies lasts as long as what it uses."""
    fenced = re.compile(r"^```\w+[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    sources = {label(page): "\n".join(fenced.findall(page.read_text())) for page in PAGES}
    folders = (ROOT / "examples", ROOT / "docs" / "examples")
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        sources[label(path)] = path.read_text()
    found = {
        name: private
        for name, source in sources.items()
        if "prometheus_client" in source
        and (private := re.findall(r"(?<!self)\._[a-z]\w*", source))
    }
    assert found == {}


# Words


@pytest.mark.parametrize("page", sorted({*PAGES} - INTERNALS), ids=label)
def test_what_a_user_reads_says_patch(page: Path) -> None:
    without_files = re.sub(r"`[\w/.]+`", "``", page.read_text())
    assert re.findall(r"\bseams?\b", without_files, re.IGNORECASE) == []


#: What a user meets; each is defined on one page, and used alike everywhere.
TERMS = (
    *("Request", "Accepted", "Outcome", "Arrival", "Stage", "Replica", "Client", "Packet"),
    *("TTFP", "RTF", "Hop", "Edge", "Event channel", "Family", "Sample", "Missing sample"),
    *("Patch", "Event", "Hook", "Hook implementation", "Hook plugin", "Exporter"),
)


@pytest.mark.parametrize("term", TERMS)
def test_term_is_defined_once(term: str) -> None:
    begun = re.compile(rf"^(?:- )?\*\*{term}\.?\*\*", re.MULTILINE)
    defined = [label(page) for page in PAGES for _ in begun.findall(page.read_text())]
    assert defined == ["docs/reference/definitions.md"]


def test_page_of_definitions_begins_with_its_words_in_their_order() -> None:
    contents, *sections = re.split(
        r"^## ", (DOCS / "reference" / "definitions.md").read_text(), flags=re.MULTILINE
    )
    listed = " ".join(contents[contents.index("\n- ") + 3 :].split()).split(" - ")
    defined = []
    for section in sections:
        title, _, text = section.partition("\n")
        words = re.findall(r"^\*\*(.+?)\.?\*\*", text, re.MULTILINE)
        shown = [word if word[:2].isupper() else word[0].lower() + word[1:] for word in words]
        anchor = title.lower().replace(" ", "-")
        defined.append(f"[{title}](#{anchor}): {', '.join(shown)}")
    assert listed == defined
