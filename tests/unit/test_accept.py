"""What a scraper gets by what it says it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin.exposition.accept import preferred, takes_gzip, wish

OPENMETRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/plain", "text"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text"),
        ("application/json", "text"),
        (OPENMETRICS, "openmetrics"),
        (f"{OPENMETRICS}; version=1.0.0; charset=utf-8", "openmetrics"),
        (f"{OPENMETRICS};version=0.0.1", "openmetrics"),
        (f'{OPENMETRICS};version="1.0.0"', "openmetrics"),
        (f"{OPENMETRICS.upper()};VERSION=1.0.0", "openmetrics"),
        (f"{OPENMETRICS};version=2.0.0", "text"),
        (f"{OPENMETRICS};version=2.0.0,{OPENMETRICS};version=1.0.0;q=0.5", "openmetrics"),
        (f"text/plain;version=0.0.4,{OPENMETRICS}", "text"),
        (f"{OPENMETRICS};q=0.3,text/plain;q=0.5", "text"),
        (f"{OPENMETRICS};q=0,*/*;q=0.1", "text"),
        (f"{OPENMETRICS};q=high", "openmetrics"),
        # Prometheus 2.53 and 3.5, and 3.5 where it takes native histograms.
        (
            f"{OPENMETRICS};version=1.0.0;q=0.5,{OPENMETRICS};version=0.0.1;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "openmetrics",
        ),
        (
            f"{OPENMETRICS};version=1.0.0;escaping=allow-utf-8;q=0.6,{OPENMETRICS};version=0.0.1;"
            "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;"
            "q=0.3,*/*;q=0.2",
            "openmetrics",
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
            f"encoding=delimited;q=0.7,{OPENMETRICS};version=1.0.0;q=0.6,text/plain;q=0.4",
            "openmetrics",
        ),
    ],
)
def test_format_is_the_one_that_is_liked_best(accept: str, format_: str) -> None:
    assert preferred(accept) == format_


@pytest.mark.parametrize(
    ("accept_encoding", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_for_those_who_take_it(accept_encoding: str, taken: bool) -> None:
    assert takes_gzip(accept_encoding) is taken


def test_samples_can_be_asked_for_by_name() -> None:
    assert wish("", "", "name[]=a%3Ab&x=1&name[]=c").names == ("a:b", "c")
    assert wish("", "", "x=1").names == ()


@given(st.text(), st.text(), st.text())
def test_no_request_is_too_odd(accept: str, accept_encoding: str, query: str) -> None:
    assert wish(accept, accept_encoding, query).format in ("text", "openmetrics")
