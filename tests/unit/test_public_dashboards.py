"""Public dashboards of vLLM on the page of a pipeline: what each query shows, and what we say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import Counter, Gauge, Histogram

from testbed.pages import dashboards
from testbed.pages.dashboards import Dashboard, Query, Verdict, judge, parse
from testbed.pages.places import DOCS
from tests import engines_page
from tests.engines_page import Page, seen, shown
from vllm_omni_metrics_plugin import catalog

QUERIES = [(board, query) for board in dashboards.dashboards() for query in board.queries]


@pytest.fixture(scope="module")
def ours() -> Page:
    return engines_page.ours()


def label(value: Dashboard | Query) -> str:
    return value.name if isinstance(value, Dashboard) else value.panel


@pytest.mark.parametrize("board", dashboards.dashboards(), ids=label)
def test_every_query_shows_what_is_said_of_it(board: Dashboard, ours: Page) -> None:
    absent = {Verdict.SILENT, Verdict.ELSEWHERE}
    for query in board.queries:
        said, shows = judge(query).verdict, seen(ours, query)
        assert said == shows or {said, shows} == absent, (query, said, shows)


def test_plugin_silences_nothing_but_the_list_of_engines(ours: Page) -> None:
    """Beside vLLM's own classes, whose page has the label ``engine``."""
    theirs = shown((Gauge, Counter, Histogram))
    silenced = [
        (board.name, query.panel)
        for board, query in QUERIES
        if seen(ours, query) == Verdict.SILENT != seen(theirs, query)
    ]
    assert silenced == [
        (f"vLLM / {name}", "variable engine")
        for name in ("Instances", "KV Cache", "Speculative Decoding")
    ]


@pytest.mark.parametrize(
    ("read", "functions", "verdict"),
    [
        ("up by ()", ("count",), Verdict.SAME),
        ("vllm:num_requests_running", (), Verdict.APART),
        ("vllm:num_requests_running by (stage, replica)", ("sum",), Verdict.APART),
        ("vllm:num_requests_running by (stage)", ("sum",), Verdict.TOGETHER),
        ("vllm:num_requests_running by (engine)", ("sum",), Verdict.TOGETHER),
        ("vllm:num_requests_running by (engine)", ("label_values",), Verdict.SILENT),
        ("vllm:num_requests_running by (stage)", ("label_values",), Verdict.SAME),
        ("vllm:num_requests_running{engine} by ()", ("sum",), Verdict.ALL_ALONE),
        ("vllm:num_requests_running{engine,shard} by ()", ("sum",), Verdict.SILENT),
        ("vllm:num_requests_running{shard} by ()", ("sum",), Verdict.SILENT),
        ("vllm:lora_requests_info by (job)", ("topk",), Verdict.SAME),
        ("vllm:num_requests_swapped", (), Verdict.SILENT),
        ("lmcache:local_cache_usage", (), Verdict.ELSEWHERE),
        ("vllm:current_qps", (), Verdict.ELSEWHERE),
    ],
)
def test_verdict_of_one_read(
    read: str, functions: tuple[str, ...], verdict: Verdict, ours: Page
) -> None:
    query = Query("-", 1, functions, (parse(read),))
    assert judge(query).verdict == verdict
    assert seen(ours, query) == (Verdict.SILENT if verdict == Verdict.ELSEWHERE else verdict)


def test_query_shows_as_much_as_its_read_that_shows_least() -> None:
    running, swapped = parse("vllm:num_requests_running"), parse("vllm:num_requests_swapped")
    for reads in ((running, swapped), (swapped, running)):
        answer = judge(Query("-", 1, (), reads))
        assert (answer.verdict, answer.about) == (Verdict.SILENT, ("vllm:num_requests_swapped",))


def test_sample_of_which_nothing_is_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="vllm:no_such_family"):
        judge(Query("-", 1, (), (parse("vllm:no_such_family"),)))


@pytest.mark.parametrize("text", ["", "a b", "a{b", "a by c", "rate(a)"])
def test_what_no_query_reads_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not what a query reads"):
        parse(text)


def test_families_that_are_said_to_be_absent_are_asked_for_and_are_not_there(ours: Page) -> None:
    asked = {read.sample for _, query in QUERIES for read in query.reads}
    stems = {re.sub(r"_(bucket|sum|count)$", "", sample) for sample in asked}
    absent = dashboards.GONE.keys() | dashboards.LATER.keys()
    assert absent <= stems
    assert absent.isdisjoint({*ours, *dashboards.vllm_families()})
    assert not [name for name in ours if dashboards.ELSEWHERE.match(name)]


def named() -> Iterator[str]:
    for _, query in QUERIES:
        yield from re.findall(r"vllm:\w+", " ".join(judge(query).instead))


def test_everything_to_ask_instead_is_there(ours: Page) -> None:
    families = {family.name for family in catalog.FAMILIES} | dashboards.vllm_families().keys()
    assert {*named()} - families - ours.keys() == set()
    assert {*dashboards.OF_REQUESTS.values()} <= {*named()}


def test_page_of_the_engines_families_has_every_panel_and_the_totals() -> None:
    text = (DOCS / "reference" / "engine-families.md").read_text()
    for board in dashboards.dashboards():
        section = text.partition(f"\n### {board.name}\n")[2].partition("\n### ")[0]
        assert f"/{board.path})" in section, board.name
        panels = {
            re.sub(r" \(\d+ of \d+\)$", "", panel)
            for row in re.findall(r"^\| (.+?) \| (?:answers|silent|another)", section, re.MULTILINE)
            for panel in row.split("; ")
        }
        assert panels == {query.panel for query in board.queries}, board.name
    table = text.partition("<!-- public_totals -->")[2].partition("<!-- end of")[0]
    totals = [int(count) for count in re.findall(r"\| (\d+) \|$", table, re.MULTILINE)]
    assert sum(totals) == sum(query.times for _, query in QUERIES)
    assert len(totals) == len(Verdict)
