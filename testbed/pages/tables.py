"""Writes the tables of README.md from the data they describe: ``python -m testbed.pages``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from testbed.paths import ROOT
from vllm_omni_metrics_plugin import api_servers, settings
from vllm_omni_metrics_plugin.cli import families as catalogue
from vllm_omni_metrics_plugin.hooks import specs
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.patches.table import ABSENT, seams_of
from vllm_omni_metrics_plugin.tables import markdown

README = ROOT / "README.md"


def variables() -> str:
    rows = ((f"`{v.name}`", v.default, v.meaning) for v in settings.VARIABLES)
    return markdown(("variable", "default", "meaning"), rows)


def families() -> str:
    return catalogue.table()


def hooks() -> str:
    rows = (
        (f"`{name}(event)`", f"`{_event(function)}`", (function.__doc__ or "").rstrip("."))
        for name, function in vars(specs).items()
        if name.startswith("omni_")
    )
    return markdown(("hook", "event", "called when"), rows)


def engines() -> str:
    """Each seam by release; the tests of ``tests/contract`` hold the engine's sources to it."""
    here = {release.version: {s.name for s in seams_of(release.version)} for release in RELEASES}
    names = dict.fromkeys(name for names in here.values() for name in sorted(names))
    rows = [
        (f"`{name}`", *("yes" if name in here[r.version] else "-" for r in RELEASES), _why(name))
        for name in names
    ]
    tested = [release.tested for release in RELEASES]
    return markdown(
        ("seam", *(release.version for release in RELEASES), "where it is absent"),
        [
            ("with vLLM", *(release.vllm for release in RELEASES), ""),
            ("tested", *tested, ""),
            *rows,
        ],
    )


def _why(seam: str) -> str:
    return ABSENT.get(seam, "")


def limits() -> str:
    rows = (
        (", ".join(f"`{name}`" for name in limit.families), limit.reason)
        for limit in api_servers.limits()
    )
    return markdown(("families", "with several API servers"), rows)


def render(text: str) -> str:
    """README.md with its tables renewed."""
    return fill(text, (variables, families, hooks, limits, engines))


def fill(text: str, tables: Iterable[Callable[[], str]]) -> str:
    """``text`` with every generated table renewed; a table stands between two comments."""
    for table in tables:
        name = table.__name__
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not end:
            raise ValueError(f"the page has no place for the table of {name}")
        text = before + begin + table() + end + after
    return text


def _event(function: object) -> str:
    annotation = inspect.signature(function).parameters["event"].annotation  # type: ignore[arg-type]
    return str(annotation).rpartition(".")[2]


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
