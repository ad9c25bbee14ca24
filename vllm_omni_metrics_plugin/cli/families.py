"""``vllm-omni-metrics families``: the catalogue."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.catalog import Family
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES
from vllm_omni_metrics_plugin.tables import aligned, markdown


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known to the parser."""
    parser = commands.add_parser("families", help="every metric family, and which release lacks it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, with formulas and buckets")
    form.add_argument("--markdown", action="store_true", help="as tables in Markdown")
    form.add_argument(
        "--wide",
        action="store_true",
        help="with labels and units on one long line each, as where the output is no terminal",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(as_data(), indent=2))
    elif options.markdown:
        print(in_markdown(), end="")
    else:
        print(as_text(None if options.wide else _columns()))
    return 0


def as_text(columns: int | None = None) -> str:
    """A line per family, and beneath them why a release lacks one.

    Where there are only ``columns`` characters in a line, names lack their prefix, labels and units
    are left out and descriptions are wrapped.
    """
    rows = [
        (f.name, f.kind, ",".join(f.labels), f.unit, ", ".join(unavailable(f)) or "-", f.help)
        for f in catalog.FAMILIES
    ]
    families = aligned(("FAMILY", "TYPE", "LABELS", "UNIT", "NOT ON", "DESCRIPTION"), rows)
    if columns is not None and max(map(len, families.splitlines())) > columns:
        short = [(f.stem, f.kind, f.help) for f in catalog.FAMILIES]
        families = (
            f"All names begin with {catalog.PREFIX}; --wide shows labels and units, too.\n\n"
            + aligned(("FAMILY", "TYPE", "DESCRIPTION"), short, width=columns)
        )
    parts = [families]
    lacking = _lacking()
    if lacking:
        parts.append(aligned(("FAMILY", "NOT ON VLLM-OMNI", "AS"), lacking, width=columns))
    return "\n\n".join(parts)


def in_markdown() -> str:
    parts = [table()]
    lacking = [(f"`{name}`", releases, reason) for name, releases, reason in _lacking()]
    if lacking:
        parts.append(markdown(("family", "not on vLLM-Omni", "as"), lacking))
    return "\n".join(parts)


def table() -> str:
    """The catalogue in Markdown; names without their prefix, usual labels by letter."""
    rows = (
        (f"`{f.stem}`", f.kind, _letters(f.labels), f.unit, f.help.rstrip("."))
        for f in catalog.FAMILIES
    )
    return markdown(("family", "type", "labels", "unit", "meaning"), rows)


def as_data() -> list[dict[str, Any]]:
    """What ``--json`` prints."""
    return [
        {
            "name": family.name,
            "type": family.kind,
            "unit": family.unit,
            "labels": list(family.labels),
            "description": family.help,
            "hook": family.event if family.event.startswith("omni_") else None,
            "formula": family.formula,
            "buckets": list(family.buckets),
            "unavailable": unavailable(family),
        }
        for family in catalog.FAMILIES
    ]


def unavailable(family: Family) -> dict[str, str]:
    """By release of vLLM-Omni that gives it no samples, the reason."""
    return {
        release.version: release.unavailable[family.stem]
        for release in RELEASES
        if family.stem in release.unavailable
    }


def _columns() -> int | None:
    """How many characters fit into a line of the output; None if it is no terminal."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return None


def _lacking() -> list[tuple[str, str, str]]:
    """Family, releases and reason; releases that lack it for the same reason are together."""
    rows = []
    for family in catalog.FAMILIES:
        releases: dict[str, list[str]] = {}
        for version, reason in unavailable(family).items():
            releases.setdefault(reason, []).append(version)
        rows += [(family.stem, ", ".join(vs), reason) for reason, vs in releases.items()]
    return rows


def _letters(labels: Sequence[str]) -> str:
    for letter, common in (("S", catalog.STAGE), ("E", catalog.EDGE)):
        if labels[: len(common)] == common:
            return ", ".join((letter, *labels[len(common) :]))
    return ", ".join(labels)
