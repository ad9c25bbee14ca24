"""How a real server answers scrapes: on each path and port, in each format, from one registry."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testbed.clients import audio
from testbed.prometheus import UnavailableError, faults
from testbed.server import Server
from tests.e2e.conftest import OPENMETRICS, Page, is_idle, page, settled
from tests.openmetrics import strictly
from vllm_omni_metrics_plugin import catalog

#: What belongs to the moment of a scrape, or to being scraped.
MOMENTARY = ("process_", "python_", "http_", "vllm:omni_oldest_waiting_seconds")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def idle_server(speech_server: Server) -> Server:
    """One that has something to show, and does nothing."""
    assert audio.speech(speech_server.url, tokens=10, stream="audio").status == 200
    settled(speech_server, is_idle)
    return speech_server


def samples(found: list[Any]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for sample in found
        if not sample.name.startswith(MOMENTARY) and not sample.name.endswith("_created")
    }


def in_text(shown: Page) -> Samples:
    families = text_string_to_metric_families(shown.body.decode())
    return samples([sample for family in families for sample in family.samples])


def in_openmetrics(shown: Page) -> Samples:
    return samples(strictly(shown.body))


def at_one_moment(server: Server, look: Callable[[], Samples]) -> tuple[Samples, Samples]:
    """What the server's usual page says, and what ``look`` does, while nothing changes."""
    for _ in range(50):
        before = in_text(page(server.url))
        looked = look()
        if in_text(page(server.url)) == before:
            return before, looked
    raise AssertionError("the server never stands still")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
@pytest.mark.parametrize(
    ("accept", "content_type", "read"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", in_text),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", in_openmetrics),
    ],
)
def test_formats_and_paths_differ_in_nothing_that_is_measured(
    idle_server: Server,
    path: str,
    accept: str,
    content_type: str,
    read: Callable[[Page], Samples],
) -> None:
    shown = page(idle_server.url, accept, path)
    assert shown.headers["content-type"] == content_type
    for word in (b"vllm:omni_", b"vllm:generation", b"process_cpu_seconds", b"python_info"):
        assert word in shown.body
    usual, other = at_one_moment(idle_server, lambda: read(page(idle_server.url, accept, path)))
    assert other == usual


def test_types_come_with_the_names_of_their_samples(idle_server: Server) -> None:
    shown = page(idle_server.url, OPENMETRICS, "/metrics/").body.decode()
    assert "# TYPE vllm:omni_audio_ttfp_seconds histogram\nvllm:omni_audio_ttfp_" in shown
    assert "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{" in shown


def test_promtool_has_nothing_to_say_but_of_names_that_are_the_engines_way(
    idle_server: Server,
) -> None:
    try:
        found = faults(page(idle_server.url).body)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    ours = [(family, fault) for family, fault in found if family.startswith(catalog.PREFIX)]
    assert ours, "it looks at names"
    for family, fault in ours:
        is_of_colons = fault == "metric names should not contain ':'"
        # The engine gives milliseconds, and families of ours that compare with its own do.
        is_of_units = fault == "metric names should not contain abbreviated units"
        is_in_milliseconds = family.removesuffix("_created").endswith("_ms")
        assert is_of_colons or (is_of_units and is_in_milliseconds), (family, fault)


def test_page_is_compressed_for_those_who_take_it(idle_server: Server) -> None:
    shown = page(idle_server.url, **{"Accept-Encoding": "gzip"})
    assert shown.headers["content-encoding"] == "gzip"
    assert in_text(Page({}, gzip.decompress(shown.body)))


def test_port_of_its_own_shows_the_same(idle_server: Server) -> None:
    url = f"http://127.0.0.1:{idle_server.environment['VLLM_OMNI_METRICS_PORT']}"
    usual, other = at_one_moment(idle_server, lambda: in_openmetrics(page(url, OPENMETRICS)))
    assert other == usual


def test_scrapes_at_once_are_all_answered(idle_server: Server) -> None:
    pages = audio.together([lambda: page(idle_server.url)] * 12, at_once=12)
    assert all(in_text(shown) for shown in pages)
