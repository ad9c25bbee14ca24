"""The metric families: as one table, as a section each, and the few that people alert on."""

from __future__ import annotations

from vllm_omni_metrics_plugin import api_servers, catalog
from vllm_omni_metrics_plugin.catalog import Family
from vllm_omni_metrics_plugin.cli import families as command
from vllm_omni_metrics_plugin.tables import markdown
from vllm_omni_metrics_plugin.testing import EVENTS

#: The families that people alert on, and the question that each of them answers.
ALERTS = {
    "audio_ttfp_seconds": "What is my TTFP, the time to the first packet of audio?",
    "audio_rtf": "Is speech made faster than it plays? Above 1 the client hears gaps.",
    "e2e_request_latency_seconds": "How long until a response is complete?",
    "requests_success_total": "How many requests succeed, fail, or lose their client?",
    "num_requests_running": "How many requests execute in a stage now?",
    "image_generation_time_seconds": "How long does an image take?",
    "video_rtf": "How does making a video compare with playing it?",
    "transfer_failures_total": "Do payloads get lost between the stages?",
}


def alerts() -> str:
    rows = (
        (question, f"`{catalog.BY_STEM[stem].name}`", catalog.BY_STEM[stem].kind)
        for stem, question in ALERTS.items()
    )
    return markdown(("question", "family", "type"), rows)


def families() -> str:
    return command.table()


def sections() -> str:
    return "\n".join(map(_section, catalog.FAMILIES))


def _section(family: Family) -> str:
    hook = family.event
    rows = [
        ("type", family.kind),
        ("unit", family.unit),
        ("labels", ", ".join(f"`{label}`" for label in family.labels)),
        ("from", f"[{hook}](hooks.md#{hook})" if hook in EVENTS else "the plugin itself"),
        ("sample", family.formula),
    ]
    if family.buckets:
        rows.append(("buckets", " ".join(f"{bound:g}" for bound in family.buckets)))
    for label, values in family.known.items():
        rows.append((f"`{label}` at 0 from the start", ", ".join(f"`{v}`" for v in values)))
    if family.missing:
        rows.append(("missing samples", ", ".join(f"`{reason}`" for reason in family.missing)))
    rows.append(("several API servers", api_servers.adding_up(family)))
    return f"### {family.stem}\n\n{family.help}\n\n{markdown(('', ''), rows)}"
