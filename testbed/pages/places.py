"""Which page has which generated part, and how a part gets into its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from testbed.pages import bench, dashboards, doctor, families, hooks, native, plugins, tables
from testbed.paths import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"

Part = Callable[[], str]

#: Each generated part is in one page, under the name of the function that makes it.
PLACES: Mapping[Path, tuple[Part, ...]] = {
    README: (families.alerts,),
    DOCS / "explanation" / "several-api-servers.md": (tables.limits,),
    DOCS / "reference" / "bench-figures.md": (
        bench.requests,
        bench.audio,
        bench.images,
        bench.videos,
        bench.bench_only,
    ),
    DOCS / "reference" / "doctor.md": (
        doctor.rules,
        doctor.tallies,
        doctor.traps,
        doctor.reasons,
        doctor.laws,
    ),
    DOCS / "reference" / "engine-families.md": (
        dashboards.public_totals,
        dashboards.public_dashboards,
    ),
    DOCS / "reference" / "engine-releases.md": (tables.engines,),
    DOCS / "reference" / "families.md": (families.families, families.sections),
    DOCS / "reference" / "hooks.md": (hooks.conventions, hooks.hooks, hooks.sections, hooks.parts),
    DOCS / "reference" / "native-families.md": (native.native,),
    DOCS / "reference" / "plugins.md": (plugins.methods, plugins.stats, plugins.marks),
    DOCS / "reference" / "variables.md": (tables.variables,),
}


def render(page: Path) -> str:
    """The page with its generated parts renewed."""
    return fill(page.read_text(), PLACES[page])


def fill(text: str, parts: Iterable[Part]) -> str:
    """``text`` with every part renewed; raises ValueError where there is no place for one."""
    for part in parts:
        name = part.__name__
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not end:
            raise ValueError(f"the page has no place for {name}")
        text = f"{before}{begin}\n{part().strip()}\n\n{end}{after}"
    return text
