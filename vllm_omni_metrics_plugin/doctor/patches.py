"""What became of each patch, and what that means for the families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.report import FamilyState, Finding, PatchState
from vllm_omni_metrics_plugin.patches.dry_run import as_onlooker, load_general_plugins, try_seams
from vllm_omni_metrics_plugin.patches.seams.seam import ENGINE_FAMILIES, Seam
from vllm_omni_metrics_plugin.scrape import Scrape

#: Of patches whose work is in other processes than the server's.
NOT_REPORTED = "not reported"
_OUT = ("skipped", "failed")


def tried(seams: Sequence[Seam]) -> tuple[list[PatchState], list[Finding]]:
    """Each patch, applied in this process to the installed engine and taken out again."""
    findings = []
    with as_onlooker():
        raised = load_general_plugins()
        results = try_seams(seams)
    if raised is not None:
        why = f"loading the engine's general plugins raises {raised}: a server does not start"
        findings.append(Finding("broken", "engine", why))
    states = [
        PatchState(seam.name, seam.target, status, reason, others)
        for seam, status, reason, others in results
    ]
    return states, findings


def reported(page: Scrape, seams: Sequence[Seam]) -> list[PatchState]:
    """Each patch, as a server reports it of its own process; ``seams`` are those known here."""
    by_name = {
        sample.labels.get("patch", ""): sample.labels
        for sample in page.named(f"{catalog.PREFIX}metrics_patch_info")
        if sample.value
    }
    not_reported = {
        seam.name: PatchState(
            seam.name, seam.target, NOT_REPORTED, f"of the {' and '.join(seam.roles)} processes"
        )
        for seam in seams
    }
    states = {
        name: PatchState(
            name, labels.get("target", ""), labels.get("status", ""), labels.get("reason", "")
        )
        for name, labels in by_name.items()
    }
    return list({**not_reported, **states}.values())


def check(
    states: Iterable[PatchState], unavailable: Mapping[str, str], seams: Sequence[Seam]
) -> list[Finding]:
    """What is wrong with them; ``unavailable`` says by stem what this release is known to lack."""
    states = list(states)
    findings = []
    feeds = {seam.name: seam.families for seam in seams}
    for state in states:
        by = f", which {' and '.join(state.others)} has wrapped" if state.others else ""
        if state.status in _OUT:
            fed = feeds.get(state.name)  # nothing is known of another release's patch
            known = fed is not None and set(fed) <= set(unavailable)
            why = f"{state.name} at {state.target}{by} was {state.status}: {state.reason}"
            findings.append(Finding("note" if known else "degraded", "patches", why))
        elif state.others:
            why = f"{' and '.join(state.others)} wraps {state.target} too; both work"
            findings.append(Finding("note", "conflicts", why))
    server = [state for state in states if state.status != NOT_REPORTED]
    if server and all(state.status in _OUT for state in server):
        findings.append(Finding("broken", "patches", "no patch fits this engine"))
    return findings


def availability(
    states: Iterable[PatchState], unavailable: Mapping[str, str], seams: Sequence[Seam]
) -> list[FamilyState]:
    """Each family of the catalogue, and the engine's own, by the patches that feed it."""
    by_name = {state.name: state for state in states}
    families = []
    for stem in (*catalog.BY_STEM, ENGINE_FAMILIES):
        name = catalog.BY_STEM[stem].name if stem in catalog.BY_STEM else stem
        feeding = [by_name[seam.name] for seam in seams if stem in seam.families]
        families.append(_availability(name, feeding, unavailable.get(stem)))
    return families


def _availability(name: str, feeding: list[PatchState], lacking: str | None) -> FamilyState:
    if lacking is not None:
        return FamilyState(name, "no", lacking)
    out = [f"{state.name}: {state.reason}" for state in feeding if state.status in _OUT]
    waiting = [state.name for state in feeding if state.status == "deferred"]
    if out:
        return FamilyState(name, "no" if len(out) == len(feeding) else "in part", "; ".join(out))
    if waiting and len(waiting) == len(feeding):
        return FamilyState(name, "not yet", "nothing of the engine that feeds it is loaded")
    return FamilyState(name, "yes", "")
