"""Reading /metrics: one sample, sums, splits, and what was added between two looks."""

from __future__ import annotations

import pytest

from tests.unit.conftest import serving
from vllm_omni_metrics_plugin.scrape import NoAnswerError, Sample, Scrape, parse, scrape

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
