"""Names that lost their colons between the server and whoever reads its ``/metrics``."""

from __future__ import annotations

import re
from collections import Counter

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.scrape import Scrape

_OURS = catalog.PREFIX.replace(":", "_")
_TYPE = re.compile(r"^# TYPE (vllm\S*)", re.MULTILINE)
_SUFFIX = re.compile(r"_(bucket|count|sum|total|created)$")
_BARE_STEMS = frozenset(_SUFFIX.sub("", stem) for stem in catalog.BY_STEM)


def with_colons(page: Scrape, text: str) -> tuple[Scrape, list[Finding]]:
    """The page ``text`` as the server would have it, and what became of its names, if anything."""
    if page.has_plugin or not page.names(f"{_OURS}metrics_"):
        return page, []
    return page.renamed(restored), [Finding("degraded", "names", _what_happened(text))]


def _what_happened(text: str) -> str:
    # When a counter began has a family of its own in the text format.
    families = [family for family in _TYPE.findall(text) if not family.endswith("_created")]
    if any(":" in family for family in families):
        why = (
            "names lack their colons, which the page's own HELP and TYPE lines keep: this is "
            "/metrics/, or a page that its reader asked for in OpenMetrics; read /metrics, without "
            "the slash, as plain text"
        )
    else:
        why = "a collector between the server and this page has made '_' of each ':' in names"
    stems = Counter(family.replace(":", "_").removeprefix(_OURS) for family in families)
    twice = sorted(stem for stem, times in stems.items() if times > 1)
    if twice:
        why += (
            f". {', '.join(twice)} then stand for a family of ours and one of the engine's; "
            "VLLM_OMNI_METRICS_NATIVE=0 on the server leaves the engine's out"
        )
    return why


def restored(name: str) -> str:
    """The name as a server has it."""
    if name.startswith(_OURS):
        stem = name.removeprefix(_OURS)
        is_ours = stem in catalog.BY_STEM or _SUFFIX.sub("", stem) in _BARE_STEMS
        return f"{catalog.PREFIX if is_ours else 'vllm_omni:'}{stem}"
    return re.sub("^vllm_", "vllm:", name)
