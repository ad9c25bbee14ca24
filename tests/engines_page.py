"""The page of a pipeline's ``vllm:*`` families as Prometheus has it, and what queries show of it.

Made of the metric classes themselves, for what is said of the queries to be held to the series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from testbed.pages import dashboards
from testbed.pages.dashboards import Query, Read, Verdict
from vllm_omni_metrics_plugin.patches.engine_families.relabel import Engines, relabelled

#: Two stages, of which one has two replicas: as vLLM numbers them, and as we call them.
MEMBERS = {0: ("0", "0"), 1: ("1", "0"), 2: ("1", "1")}
REPLICA = ("stage", "replica")

Labels = Mapping[str, str]
Page = Mapping[str, list[Labels]]


def shown(classes: tuple[type, ...]) -> dict[str, list[Labels]]:
    """What Prometheus has of a server whose stat logger is made of these classes, by sample."""
    registry = CollectorRegistry()
    kinds = dict(zip(("gauge", "counter", "histogram"), classes, strict=True))
    for name, (kind, names) in dashboards.vllm_families().items():
        family = kinds[kind](name, "-", labelnames=names, registry=registry)
        for engine in MEMBERS:
            family.labels(**{n: str(engine) if n == "engine" else "some" for n in names})
    scraped = dict.fromkeys(dashboards.TARGET, "some")
    page: dict[str, list[Labels]] = {
        name: [{**scraped, **dict.fromkeys(labels, "some")}]
        for name, labels in dashboards.server_samples().items()
    }
    for collected in registry.collect():
        for sample in collected.samples:
            page.setdefault(sample.name, []).append({**scraped, **sample.labels})
    return page


def ours() -> Page:
    """The page of a server with this plugin."""
    engines = Engines()
    for engine, member in MEMBERS.items():
        engines.add(engine, *member)
    return shown(relabelled(engines))


class Seen(NamedTuple):
    """What a page has of one read."""

    #: With ``All``, and with an engine's number, where the query filters by one.
    series: list[Labels]
    with_a_number: list[Labels]

    def lines(self, read: Read) -> list[set[tuple[str, ...]]]:
        """Of each line in the panel, the members that are in it."""
        by = read.by
        lines: dict[frozenset[tuple[str, str]], set[tuple[str, ...]]] = {}
        for labels in self.series:
            left = ((k, v) for k, v in labels.items() if k != "le" and (by is None or k in by))
            members = lines.setdefault(frozenset(left), set())
            if "stage" in labels:
                members.add(tuple(labels[name] for name in REPLICA))
        return [*lines.values()]


def look(page: Page, read: Read) -> Seen:
    others = read.filters - {"engine"}
    series = [labels for labels in page.get(read.sample, ()) if others <= labels.keys()]
    numbered = [x for x in series if "engine" not in read.filters or x.get("engine") == "0"]
    return Seen(series, numbered)


def seen(page: Page, query: Query) -> Verdict:
    """The verdict by the series alone: what is selected, and whose are in one line."""
    found = [(read, look(page, read)) for read in query.reads]
    if not all(at.series for _, at in found):
        return Verdict.SILENT
    if query.functions == ("label_values",):
        listed = all(read.by and read.by <= at.series[0].keys() for read, at in found)
        return Verdict.SAME if listed else Verdict.SILENT
    if not all(at.with_a_number for _, at in found):
        return Verdict.ALL_ALONE
    lines = [members for read, at in found for members in at.lines(read)]
    if any(len(members) > 1 for members in lines):
        return Verdict.TOGETHER
    return Verdict.APART if any(lines) else Verdict.SAME
