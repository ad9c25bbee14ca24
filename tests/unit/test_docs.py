"""The documentation is complete, is what the code says, and does what it shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from testbed.pages import __main__
from testbed.paths import ROOT
from vllm_omni_metrics_plugin import catalog, settings
from vllm_omni_metrics_plugin.hooks import hookimpl, plugins
from vllm_omni_metrics_plugin.hooks.listener import BLOCKED_SECONDS, FAULTS_IN_A_ROW
from vllm_omni_metrics_plugin.hooks.worker import CAPACITY
from vllm_omni_metrics_plugin.testing import EVENTS

PAGES = sorted(
    (*__main__.DOCS.glob("*.md"), ROOT / "README.md", *ROOT.glob("examples/*/README.md"))
)
HINT = "run `python -m testbed.pages`"


def section(page: str, title: str) -> str:
    """The text under one heading of a page."""
    _, _, rest = (__main__.DOCS / page).read_text().partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("page", __main__.pages())
def test_generated_page_is_what_the_code_says(page: str) -> None:
    assert (__main__.DOCS / page).read_text() == __main__.pages()[page], HINT


@pytest.mark.parametrize("hook", EVENTS)
def test_every_hook_has_its_section_with_signature_and_example(hook: str) -> None:
    text = section("hooks.md", hook)
    assert f"{hook}(event: {EVENTS[hook].__name__}) -> None" in text, HINT
    assert f"```python\n{__main__.example(hook)}```" in text, HINT


@pytest.mark.parametrize("hook", EVENTS)
def test_every_example_implements_its_hook_and_prints_what_the_page_shows(hook: str) -> None:
    functions = [
        n for n in ast.walk(ast.parse(__main__.example(hook))) if isinstance(n, ast.FunctionDef)
    ]
    assert [function.name for function in functions] == [hook]
    printed = __main__.output(hook)
    assert printed.strip(), "an example shows something"
    assert f"```\n{printed}```" in section("hooks.md", hook), HINT


def test_there_is_no_example_of_a_hook_that_is_gone() -> None:
    assert {path.stem for path in __main__.EXAMPLES.glob("*.py")} == set(EVENTS)


@pytest.mark.parametrize("hook", EVENTS)
def test_every_event_field_has_its_meaning(hook: str) -> None:
    said = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*) \|$", section("hooks.md", hook), re.MULTILINE)
    meanings = {name: meaning.strip() for name, _, meaning in said}
    fields = [field.name for field in msgspec.structs.fields(EVENTS[hook])]
    assert list(meanings) == fields, HINT
    silent = [name for name, meaning in meanings.items() if not meaning]
    assert silent == [], "write a `#:` comment above the field in hooks/events.py"


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_every_family_has_its_section(family: catalog.Family) -> None:
    text = section("families.md", family.stem)
    assert family.help in text, HINT
    assert family.formula in text
    assert all(f"`{label}`" in text for label in family.labels)


@pytest.mark.parametrize("variable", settings.VARIABLES, ids=lambda variable: variable.name)
def test_every_variable_is_explained(variable: settings.Variable) -> None:
    assert f"| `{variable.name}` |" in (__main__.DOCS / "variables.md").read_text(), HINT


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
    rules = (__main__.DOCS / "rules.md").read_text()
    for option in (*hookimpl.__kwdefaults__, *plugins.register.__kwdefaults__):
        assert option in rules or option == "specname", option


def test_rules_name_the_limits_that_the_code_has() -> None:
    rules = (__main__.DOCS / "rules.md").read_text()
    words = {10: "ten times in a row", 0.5: "half a second"}
    for text in (words[FAULTS_IN_A_ROW], words[BLOCKED_SECONDS], f"{CAPACITY:,} wait"):
        assert text in rules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
