"""What the seams' states mean for the families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.report import FamilyState, Finding, SeamState
from vllm_omni_metrics_plugin.patches.dry_run import as_onlooker, load_general_plugins, try_seams
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam
from vllm_omni_metrics_plugin.scrape import Scrape

#: Of seams whose work is in other processes than the server's.
NOT_REPORTED = "not reported"
_OUT = ("skipped", "failed")


def tried(seams: Sequence[Seam]) -> tuple[list[SeamState], list[Finding]]:
    """Each seam, applied in this process to the installed engine and taken out again."""
    findings = []
    with as_onlooker():
        raised = load_general_plugins()
        results = try_seams(seams)
    if raised is not None:
        why = f"loading the engine's general plugins raises {raised}: a server does not start"
        findings.append(Finding("broken", "engine", why))
    states = [
        SeamState(seam.name, seam.target, status, reason, others)
        for seam, status, reason, others in results
    ]
    return states, findings


def reported(seen: Scrape, seams: Sequence[Seam]) -> list[SeamState]:
    """Each seam, as a server says it of its own process; ``seams`` are those known here."""
    said = {
        sample.labels.get("patch", ""): sample.labels
        for sample in seen.named(f"{catalog.PREFIX}metrics_patch_info")
        if sample.value
    }
    silent = {
        seam.name: SeamState(
            seam.name, seam.target, NOT_REPORTED, f"of the {' and '.join(seam.roles)} processes"
        )
        for seam in seams
    }
    states = {
        name: SeamState(
            name, labels.get("target", ""), labels.get("status", ""), labels.get("reason", "")
        )
        for name, labels in said.items()
    }
    return list({**silent, **states}.values())


def check(
    states: Iterable[SeamState], unavailable: Mapping[str, str], seams: Sequence[Seam]
) -> list[Finding]:
    """What is wrong with them; ``unavailable`` says by stem what this release is known to lack."""
    states = list(states)
    findings = []
    feeds = {seam.name: seam.feeds for seam in seams}
    for state in states:
        by = f", which {' and '.join(state.others)} has wrapped" if state.others else ""
        if state.status in _OUT:
            fed = feeds.get(state.name)  # nothing is known of another release's seam
            known = fed is not None and set(fed) <= set(unavailable)
            why = f"{state.name} at {state.target}{by} was {state.status}: {state.reason}"
            findings.append(Finding("note" if known else "degraded", "seams", why))
        elif state.others:
            why = f"{' and '.join(state.others)} wraps {state.target} too; both work"
            findings.append(Finding("note", "conflicts", why))
    server = [state for state in states if state.status != NOT_REPORTED]
    if server and all(state.status in _OUT for state in server):
        findings.append(Finding("broken", "seams", "no seam fits this engine"))
    return findings


def availability(
    states: Iterable[SeamState], unavailable: Mapping[str, str], seams: Sequence[Seam]
) -> list[FamilyState]:
    """Each family of the catalogue, and the engine's own, by the seams that feed it."""
    by_name = {state.name: state for state in states}
    families = []
    for stem in (*catalog.BY_STEM, ENGINE_FAMILIES):
        name = catalog.BY_STEM[stem].name if stem in catalog.BY_STEM else stem
        feeding = [by_name[seam.name] for seam in seams if stem in seam.feeds]
        families.append(_availability(name, feeding, unavailable.get(stem)))
    return families


def _availability(name: str, feeding: list[SeamState], lacking: str | None) -> FamilyState:
    if lacking is not None:
        return FamilyState(name, "no", lacking)
    out = [f"{state.name}: {state.reason}" for state in feeding if state.status in _OUT]
    waiting = [state.name for state in feeding if state.status == "deferred"]
    if out:
        return FamilyState(name, "no" if len(out) == len(feeding) else "in part", "; ".join(out))
    if waiting and len(waiting) == len(feeding):
        return FamilyState(name, "not yet", "nothing of the engine that feeds it is loaded")
    return FamilyState(name, "yes", "")
