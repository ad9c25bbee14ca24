"""Public dashboards of vLLM: what each of their queries shows of a server with this plugin.

The queries are facts that were seen once, at the revisions named with them: which samples a panel
reads, the labels that it filters and groups by, the functions that it applies. They are held to
the families of vLLM's stat logger, with ``stage`` and ``replica`` in the place of ``engine``.
"""

from __future__ import annotations

import enum
import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_omni_metrics_plugin.tables import markdown

_FOLDER = Path(__file__).parent
SEEN = _FOLDER / "public_dashboards.json"
#: What vLLM's own page has: the kind and the labels of each family of its stat logger, and the
#: labels of each sample of its server. ``python -m tests.engine.vllm_families`` records it.
PAGE = _FOLDER / "vllm_page.json"

#: Labels that Prometheus gives to whatever it scrapes.
TARGET = frozenset({"job", "instance", "namespace", "service", "pod", "endpoint"})
_READ = re.compile(r"(?P<sample>[\w:]+)(?:\{(?P<filters>[\w,]+)\})?(?: by \((?P<by>[\w, ]*)\))?")
_ENDS = {
    "gauge": ("",),
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
}


class Verdict(enum.IntEnum):
    """What a query shows, from what needs no change to what shows nothing."""

    SAME = 0
    APART = 1
    TOGETHER = 2
    ALL_ALONE = 3
    ELSEWHERE = 4
    SILENT = 5


WORDS = {
    Verdict.SAME: "answers",
    Verdict.APART: "answers by stage and replica",
    Verdict.TOGETHER: "answers for all stages as one",
    Verdict.ALL_ALONE: "answers with `All` alone",
    Verdict.ELSEWHERE: "another program's",
    Verdict.SILENT: "silent",
}

#: Families that vLLM has no more, and what shows the same today.
GONE: dict[str, tuple[str, ...]] = {
    "vllm:cpu_cache_usage_perc": (),
    "vllm:cpu_prefix_cache_hit_rate": (),
    "vllm:gpu_cache_usage_perc": ("vllm:kv_cache_usage_perc",),
    "vllm:gpu_prefix_cache_hit_rate": (
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_queries_total",
    ),
    "vllm:gpu_prefix_cache_hits_total": ("vllm:prefix_cache_hits_total",),
    "vllm:gpu_prefix_cache_queries_total": ("vllm:prefix_cache_queries_total",),
    "vllm:num_requests_swapped": (),
    "vllm:time_per_output_token_seconds": ("vllm:inter_token_latency_seconds",),
}
#: Families of a vLLM that is newer than the newest supported engine's, likewise.
LATER: dict[str, tuple[str, ...]] = {
    "vllm:nixl_num_notifications_after_expiry_total": (),
    "vllm:num_requests_kv_fetch_by_stage": (),
    "vllm:prompt_tokens_cached_by_source_total": ("vllm:prompt_tokens_by_source_total",),
    "vllm:rl_weight_update_operation_duration_seconds": (),
    "vllm:simple_kv_offload_load_blocks_total": (),
    "vllm:simple_kv_offload_pending_store_blocks": (),
    "vllm:simple_kv_offload_save_outcomes_total": (),
    "vllm:simple_kv_offload_used_blocks": (),
    "vllm:sleep_mode_operation_duration_seconds": (),
}
#: Samples that a router, a cache or an endpoint picker publishes, whatever the engine is.
ELSEWHERE = re.compile(
    r"(lmcache:|router_|llm_d_epp_|vllm:(healthy_pods|num_incoming_requests)_total$|vllm:current_qps$)"
)
#: Where the stages of a request are one in the question, too: ours of the whole request.
OF_REQUESTS = {
    "vllm:e2e_request_latency_seconds": "vllm:omni_e2e_request_latency_seconds",
    "vllm:num_requests_running": "vllm:omni_num_requests_running",
    "vllm:num_requests_waiting": "vllm:omni_num_requests_waiting",
    "vllm:request_queue_time_seconds": "vllm:omni_request_queue_time_seconds",
    "vllm:request_success_total": "vllm:omni_requests_success_total",
    "vllm:time_to_first_token_seconds": "vllm:omni_audio_ttfp_seconds",
}


@dataclass(frozen=True)
class Read:
    """One sample that a query reads, with the labels that it filters and groups by."""

    sample: str
    filters: frozenset[str]
    #: None where nothing is aggregated.
    by: frozenset[str] | None


@dataclass(frozen=True)
class Query:
    panel: str
    #: How many of the panel's queries are alike but for a quantile or a value.
    times: int
    functions: tuple[str, ...]
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class Dashboard:
    name: str
    repository: str
    revision: str
    path: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Answer:
    """What a query shows, why, and what shows it here."""

    verdict: Verdict
    #: With ``{}`` in the place of what it is about.
    why: str = ""
    about: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        return self.why.format(" and ".join(f"`{name}`" for name in self.about))


def parse(read: str) -> Read:
    """From ``sample{filters} by (labels)``; raises ValueError for anything else."""
    found = _READ.fullmatch(read)
    if found is None:
        raise ValueError(f"{read!r} is not what a query reads")
    filters, by = found["filters"], found["by"]
    return Read(
        found["sample"],
        frozenset(filters.split(",") if filters else ()),
        None if by is None else frozenset(filter(None, by.split(", "))),
    )


@functools.cache
def dashboards() -> tuple[Dashboard, ...]:
    return tuple(
        Dashboard(
            board["name"],
            board["repository"],
            board["revision"],
            board["path"],
            tuple(
                Query(q["panel"], q["queries"], tuple(q["functions"]), (*map(parse, q["reads"]),))
                for q in board["queries"]
            ),
        )
        for board in json.loads(SEEN.read_text())["dashboards"]
    )


@functools.cache
def vllm_families() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Kind and labels by name, as prometheus_client is given them."""
    recorded: dict[str, Any] = json.loads(PAGE.read_text())["families"]
    return {name: (kind, tuple(labels)) for name, (kind, *labels) in recorded.items()}


@functools.cache
def server_samples() -> dict[str, frozenset[str]]:
    """The labels of what else Prometheus has of a server, which no plugin changes."""
    recorded: dict[str, list[str]] = json.loads(PAGE.read_text())["server"]
    return {"up": frozenset(), **{name: frozenset(labels) for name, labels in recorded.items()}}


@functools.cache
def samples() -> dict[str, frozenset[str]]:
    """The labels of each sample that a server with this plugin shows, but for ours."""
    shown = dict(server_samples())
    for name, (kind, labels) in vllm_families().items():
        ours = set(labels)
        if "engine" in ours:
            ours = ours - {"engine"} | {"stage", "replica"}
        for end in _ENDS[kind]:
            shown[name + end] = frozenset(ours | ({"le"} if end == "_bucket" else set()))
    return {name: labels | TARGET for name, labels in shown.items()}


def judge(query: Query) -> Answer:
    """What a query shows: as much as the read that shows least."""
    judged = _listed if query.functions == ("label_values",) else _judge
    answers = [judged(read) for read in query.reads]
    least = max(answers, key=lambda answer: answer.verdict)
    alike = [a for a in answers if (a.verdict, a.why) == (least.verdict, least.why)]
    return Answer(
        least.verdict, least.why, _once(a.about for a in alike), _once(a.instead for a in alike)
    )


def _listed(read: Read) -> Answer:
    """A variable's list: the values of one label, of however many series."""
    labels = samples().get(read.sample)
    if labels is None:
        return _absent(read.sample)
    missing = sorted((read.by or frozenset()) - labels)
    if missing:
        return Answer(Verdict.SILENT, "lists {}, a label that it lacks", (*missing,))
    return Answer(Verdict.SAME)


def _judge(read: Read) -> Answer:
    labels = samples().get(read.sample)
    if labels is None:
        return _absent(read.sample)
    missing = read.filters - labels
    if missing == {"engine"}:
        filters = ('`stage=~"..."`', '`replica=~"..."`')
        return Answer(Verdict.ALL_ALONE, "filters by {}", ("engine",), filters)
    if missing:
        why = "filters by {}, a label that it lacks"
        return Answer(Verdict.SILENT, why, (*sorted(missing),))
    if "stage" not in labels:
        return Answer(Verdict.SAME)
    if read.by is None or {"stage", "replica"} <= read.by:
        legend = ("`{{stage}}/{{replica}}` as legend",)
        return Answer(Verdict.APART, "does not group", instead=legend)
    of_requests = OF_REQUESTS.get(_family(read.sample))
    instead = ("`by (stage, replica)`", *([f"`{of_requests}`"] if of_requests else []))
    return Answer(Verdict.TOGETHER, "groups without {}", ("stage",), instead)


def _absent(sample: str) -> Answer:
    """Raises KeyError for a sample of which nothing is known."""
    if ELSEWHERE.match(sample):
        return Answer(Verdict.ELSEWHERE, "not a family of vLLM", instead=("scrape it, too",))
    family = _family(sample)
    gone = family in GONE
    why = "vLLM has no {} any more" if gone else "vLLM has {} since a newer release"
    instead = (GONE if gone else LATER)[family]
    return Answer(Verdict.SILENT, why, (family,), (*(f"`{name}`" for name in instead),))


def _family(sample: str) -> str:
    """A histogram's name without the end of its sample; others are called as their sample."""
    return re.sub(r"_(bucket|sum|count)$", "", sample)


def _once(several: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in several for item in items))


def public_dashboards() -> str:
    """A table for each dashboard: which panels show what, why, and what to ask instead."""
    return "\n".join(
        f"### {board.name}\n\n{_source(board)}\n\n"
        + markdown(("panels", "what they show", "why", "ask instead"), _rows(board))
        for board in dashboards()
    )


def public_totals() -> str:
    """How many of all queries show what."""
    totals = dict.fromkeys(Verdict, 0)
    for board in dashboards():
        for query in board.queries:
            totals[judge(query).verdict] += query.times
    rows = ((WORDS[verdict], str(count)) for verdict, count in totals.items())
    return markdown(("what they show", "queries"), rows)


def _source(board: Dashboard) -> str:
    revision, *others = board.revision.split(" ")
    at = f"https://github.com/{board.repository}/blob/{revision}/{board.path}"
    shown = " ".join([revision[:12], *others])
    return f"[{board.repository}: {board.path}]({at}), {shown}"


def _rows(board: Dashboard) -> Iterator[tuple[str, str, str, str]]:
    of_panel: dict[str, int] = {}
    panels: dict[tuple[Verdict, str], dict[str, int]] = {}
    instead: dict[tuple[Verdict, str], list[tuple[str, ...]]] = {}
    for query in board.queries:
        answer = judge(query)
        row = answer.verdict, answer.reason
        of_panel[query.panel] = of_panel.get(query.panel, 0) + query.times
        here = panels.setdefault(row, {})
        here[query.panel] = here.get(query.panel, 0) + query.times
        instead.setdefault(row, []).append(answer.instead)
    for row, named in sorted(panels.items(), key=lambda item: item[0][0]):
        shown = (
            panel if count == of_panel[panel] else f"{panel} ({count} of {of_panel[panel]})"
            for panel, count in named.items()
        )
        yield "; ".join(shown), WORDS[row[0]], row[1], ", ".join(_once(instead[row]))
