"""Reading /metrics: one sample, sums, splits, and what was added between two looks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import serving
from vllm_omni_metrics_plugin.scrape import (
    Access,
    NoAnswerError,
    Sample,
    Scrape,
    address,
    fetch,
    parse,
    scrape,
)

TEXT = """\
# TYPE vllm:omni_frames_total counter
vllm:omni_frames_total{stage="1",replica="0"} 3
vllm:omni_frames_total{stage="1",replica="1"} 4
vllm:omni_frames_total{stage="2",replica="0"} 0
# TYPE vllm:omni_running gauge
vllm:omni_running 2
vllm:omni_bare 1
"""


@pytest.fixture
def page() -> Scrape:
    return parse(TEXT)


def test_value_is_that_of_the_sample_with_exactly_these_labels(page: Scrape) -> None:
    assert page.value("vllm:omni_frames_total", stage="1", replica="1") == 4
    assert page.value("vllm:omni_frames_total", stage="1") is None
    assert page.value("vllm:omni_running") == 2
    assert page.value("no_such_name") is None


def test_sum_is_over_all_samples_with_at_least_these_labels(page: Scrape) -> None:
    assert page.sum("vllm:omni_frames_total") == 7
    assert page.sum("vllm:omni_frames_total", replica="0") == 3
    assert page.sum("vllm:omni_frames_total", replica="9") == 0
    assert page.sum("no_such_name") == 0


def test_split_leaves_zeros_out(page: Scrape) -> None:
    assert page.by("vllm:omni_frames_total", "stage") == {"1": 7}
    assert page.by("vllm:omni_frames_total", "replica", stage="1") == {"0": 3, "1": 4}


def test_names_and_label_sets_are_those_of_the_page(page: Scrape) -> None:
    assert page.names("vllm:omni_r") == {"vllm:omni_running"}
    assert page.label_sets("vllm:omni_frames_total")[0] == {"stage": "1", "replica": "0"}
    assert [sample.name for sample in page.beginning("vllm:omni_b")] == ["vllm:omni_bare"]
    assert page.named("no_such_name") == []


def test_samples_know_the_type_of_their_family(page: Scrape) -> None:
    assert [sample.kind for sample in page.named("vllm:omni_running")] == ["gauge"]
    assert {sample.kind for sample in page.named("vllm:omni_frames_total")} == {"counter"}
    assert [sample.kind for sample in page.named("vllm:omni_bare")] == ["unknown"]


def test_difference_counts_new_series_from_zero(page: Scrape) -> None:
    later = parse(TEXT.replace(" 4", " 9") + 'vllm:omni_new_total{a="b"} 5\n')
    added = later - page
    assert added.by("vllm:omni_frames_total", "replica") == {"1": 5}
    assert added.value("vllm:omni_new_total", a="b") == 5
    assert (page - Scrape()).sum("vllm:omni_frames_total") == 7


def test_what_a_failed_test_shows_are_the_plugins_samples() -> None:
    page = Scrape([Sample("vllm:omni_x_total", {"b": "2", "a": "1"}, 3.0), Sample("other", {}, 1)])
    assert repr(page) == "vllm:omni_x_total{a=1,b=2} 3"


def test_address_with_and_without_a_slash_is_read() -> None:
    with serving(TEXT.encode()) as url:
        assert scrape(url).sum("vllm:omni_frames_total") == 7
        assert scrape(f"{url}/", 5.0).sum("vllm:omni_frames_total") == 7


@pytest.mark.parametrize("text", [b"<html>{", b"vllm:omni_x nonsense\n", b"\xff"])
def test_page_that_is_no_metrics_is_no_answer(text: bytes) -> None:
    with serving(text) as url, pytest.raises(NoAnswerError, match="/metrics"):
        scrape(url)


@contextmanager
def answering(status: int = 200, **headers: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server, and the headers of each request that it got."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_headers_go_to_the_server_that_was_named_and_to_no_other() -> None:
    access = Access(headers=(("Authorization", "Bearer secret"), ("X-Team", "voices")))
    with answering() as (other, asked_there), answering(302, Location=other) as (url, asked):
        assert scrape(url, access=access).sum("vllm:omni_frames_total") == 7
    assert (asked[0]["Authorization"], asked[0]["X-Team"]) == ("Bearer secret", "voices")
    assert len(asked_there) == 1
    assert "Authorization" not in asked_there[0]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_loopback_is_asked_without_a_proxy_and_others_through_it(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    with serving(TEXT.encode()) as url:
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        for host in ("127.0.0.1", "localhost"):
            assert scrape(url.replace("127.0.0.1", host)).sum("vllm:omni_frames_total") == 7
    if variable != "all_proxy":
        with answering() as (proxy, asked):
            monkeypatch.setenv(variable, proxy)
            scrape("http://server.invalid:8000")
        assert asked[0]["Host"] == "server.invalid:8000"


def test_file_without_certificates_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pem", tmp_path / "empty.pem"):
        if path.name == "empty.pem":
            path.write_text("no certificate")
        with pytest.raises(NoAnswerError, match=rf"{path.name} holds no certificates"):
            fetch("https://127.0.0.1:1", access=Access(cacert=str(path)))


@pytest.mark.parametrize("url", ["http://a b:80", "http://[::1", "http://h:port", "nonsense", ""])
def test_address_that_is_none_is_no_answer(url: str) -> None:
    with pytest.raises(NoAnswerError):
        fetch(url)


def test_page_itself_may_be_named() -> None:
    assert address("http://h:8000") == address("http://h:8000/") == "http://h:8000/metrics"
    assert address("http://h:8000/metrics") == "http://h:8000/metrics"
    assert address("http://h:8000/metrics/") == "http://h:8000/metrics/", (
        "another page than without"
    )
