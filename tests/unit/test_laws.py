"""What holds between the numbers of a server, on pages that keep each law and that break it."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from prometheus_client import generate_latest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog, cli, doctor
from vllm_omni_metrics_plugin.doctor import examine, prometheus
from vllm_omni_metrics_plugin.doctor.laws import LAWS, Broken, Law, Side, broken
from vllm_omni_metrics_plugin.doctor.measures import Count
from vllm_omni_metrics_plugin.hooks import PathSegment
from vllm_omni_metrics_plugin.scrape import NoAnswerError, Sample, Scrape, parse

BY_NAME = {law.name: law for law in LAWS}
SAMPLES = {
    **{family.name: family for family in catalog.FAMILIES},
    **{
        f"{family.name}_{end}": family
        for family in catalog.FAMILIES
        if family.kind == "histogram"
        for end in ("sum", "count")
    },
}
OPEN = f"{catalog.PREFIX}num_requests_running"


def sample(part: Count, value: float, **labels: str) -> Sample:
    """One series of a part of a law; labels that do not matter have some value."""
    usual = dict.fromkeys(SAMPLES[part.sample].labels, "x")
    of_part = {label: values[0] for label, values in part.where.items()}
    known = {label: text for label, text in labels.items() if label in usual}
    return Sample(part.sample, {**usual, **of_part, **known}, value)


def side(side: Side, value: float, **labels: str) -> list[Sample]:
    """Its last part has the value, and the others 0."""
    return [sample(part, value if part is side.parts[-1] else 0.0, **labels) for part in side.parts]


def page(law: Law, left: float, right: float, **labels: str) -> Scrape:
    """The sides of a law; what both of them count is on the page once, as on a server's."""
    return Scrape([*side(law.left, left, **labels), *side(law.right, right, **labels)])


def of(law: Law, *pages: Scrape) -> list[Broken]:
    return broken(pages, [law])


LAW = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


@LAW
def test_law_is_about_families_and_labels_of_the_catalogue(law: Law) -> None:
    for part in (*law.left.parts, *law.right.parts):
        family = SAMPLES[part.sample]
        assert set(part.where) <= set(family.labels)
        for label, values in part.where.items():
            assert set(values) <= set(family.known.get(label, values))
    for side in (law.left, law.right):
        assert any(set(law.by) <= set(SAMPLES[part.sample].labels) for part in side.parts) or (
            law.name == "verdicts"
        )
    assert law.cause


def test_laws_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(LAWS)


#: What was cut short is on both sides of this one, so it has a test of its own.
BUT_LATENCIES = pytest.mark.parametrize(
    "law", [law for law in LAWS if law.name != "latencies"], ids=lambda law: law.name
)


@BUT_LATENCIES
def test_law_holds_where_both_sides_are_the_same(law: Law) -> None:
    assert of(law, page(law, 7, 7)) == []


@BUT_LATENCIES
@pytest.mark.parametrize(("left", "right"), [(8, 7), (7, 8), (1, 0), (0, 1)])
def test_law_is_broken_where_they_are_not(law: Law, left: float, right: float) -> None:
    found = of(law, page(law, left, right))
    assert len(found) == (law.relation == "=" or left > right)
    for each in found:
        assert (each.left, each.right) == (left, right)
        for words in (f"({left:g})", f"({right:g})", law.left.words, law.right.words, law.cause):
            assert words in str(each)


@LAW
def test_law_is_about_each_value_of_its_labels(law: Law) -> None:
    """What one has too much does not make up for what another lacks."""
    for label in law.by:
        seen = [*page(law, 8, 7, **{label: "a"}), *side(law.left, 7, **{label: "b"})]
        if any(label in SAMPLES[part.sample].labels for part in law.right.parts):
            seen += side(law.right, 8, **{label: "b"})
        found = of(law, Scrape(seen))
        assert next(each.labels[label] for each in found) == "a"
        assert f"{label} 'a'" in str(found[0])


def test_latencies_are_those_of_requests_that_were_not_cut_short() -> None:
    law = BY_NAME["latencies"]

    def seen(latencies: float, missing: float, aborted: float, complete: float) -> Scrape:
        latency, unmeasured, cut = law.left.parts
        (outcomes,) = law.right.parts
        return Scrape(
            [
                sample(latency, latencies),
                sample(unmeasured, missing),
                sample(cut, aborted),
                sample(outcomes, complete, finished_reason="stop"),
            ]
        )

    assert of(law, seen(3, 1, 5, 4)) == []
    assert [(b.left, b.right) for b in of(law, seen(3, 0, 5, 4))] == [(8, 9)]
    assert of(law, seen(5, 0, 5, 4))


@BUT_LATENCIES
def test_law_of_what_a_server_does_not_have_is_not_looked_for(law: Law) -> None:
    """It is of another version of the plugin, or makes something else."""
    assert of(law, Scrape(side(law.left, 7))) == []
    assert of(law, Scrape(side(law.right, 7))) == []
    assert of(law, Scrape()) == []


def test_seconds_may_be_as_far_apart_as_sums_of_them_are() -> None:
    law = BY_NAME["path_to_end"]
    assert of(law, page(law, 0.1 + 0.2, 0.3)) == []
    assert of(law, page(law, 1e6 + 0.0005, 1e6)) == []
    assert of(law, page(law, 1.00001, 1))


def test_law_of_idle_servers_is_not_held_to_others() -> None:
    law = BY_NAME["path_to_first_packet"]
    seen = page(law, 8, 7)
    assert of(law, seen)
    assert of(law, Scrape([*seen, Sample(OPEN, {"model_name": "x"}, 1.0)])) == []


#: The time that a request takes by :class:`Feed`.
PATH = (
    PathSegment(segment="execute", stage=0, began_at=0.0, ended_at=1.5),
    PathSegment(segment="delivery", stage=0, began_at=1.5, ended_at=2.0),
)


def is_shown(law: Law, page: Scrape) -> bool:
    return all(any(page.named(p.sample) for p in s.parts) for s in (law.left, law.right))


def test_exporter_keeps_every_law_whatever_it_is_told(feed: Feed, exposed: Any) -> None:
    """One of everything: complete, cut short, without a value, and of nobody known."""
    exposed.join()
    outcomes = ("stop", "length", "abort", "error", "rejected", "repetition")
    for outcome in outcomes:
        feed.arrive(outcome)
        feed.submit(outcome)
        feed.start(outcome)
        complete = outcome not in ("abort", "error", "rejected")
        feed.finish(outcome, outcome, critical_path=PATH if complete else ())
    feed.arrive("open")
    feed.arrive("late")
    feed.finish("late", seconds=None)
    for unknown in ({}, {"replica": None}):
        feed.finish_audio(**unknown)
        feed.finish_image(**unknown)
        feed.finish_video(**unknown)
    feed.finish_audio(samples=0)
    feed.finish_audio(generation_seconds=None)
    feed.finish_image(images=0, pixels=())
    feed.finish_image(generation_seconds=None)
    feed.finish_video(frames=None)
    feed.finish_stage()
    feed.finish_stream()
    feed.finish_stream(ending="left_before_audio", underrun_seconds=None, players=())
    feed.send()
    feed.send(to_replica=None)
    feed.send()
    feed.receive()
    feed.receive(in_flight_seconds=None)
    feed.receive(from_replica=None)
    seen = parse(generate_latest(exposed.registry).decode())
    assert list(map(str, broken([seen]))) == []
    assert {law.name for law in LAWS if not is_shown(law, seen)} == {"verdicts", "violations"}


# Pages of a server that works meanwhile


def accepted(ended: float, still_open: float, arrived: float) -> Scrape:
    law = BY_NAME["accepted"]
    outcomes, running, waiting = law.left.parts
    (arrivals,) = law.right.parts
    return Scrape(
        [
            sample(outcomes, ended),
            sample(running, still_open),
            sample(waiting, 0),
            sample(arrivals, arrived),
        ]
    )


def test_pages_that_are_not_one_moment_break_no_law() -> None:
    """Each of them has read the arrivals before, or after, one more came."""
    law = BY_NAME["accepted"]
    seen = [accepted(5, 2, 6), accepted(6, 2, 9), accepted(8, 1, 9)]
    assert all(of(law, one) for one in seen[:2])
    assert of(law, *seen) == []


def test_difference_that_stays_breaks_the_law_whatever_comes_and_goes() -> None:
    law = BY_NAME["accepted"]
    seen = [accepted(5, 2, 17), accepted(6, 2, 19), accepted(8, 1, 20)]
    (found,) = of(law, *seen)
    assert (found.left, found.right) == (9, 20)


# The doctor


class Answer(NamedTuple):
    status: int
    body: bytes


@contextmanager
def answering(answer: Callable[[str], Answer]) -> Iterator[str]:
    """The address of a server that answers by the path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def in_text(page: Scrape) -> bytes:
    own = Sample(f"{catalog.PREFIX}metrics_internal_errors_total", {"place": "x"}, 0.0)
    return "".join(
        f"{name}{{{_inside(of)}}} {value}\n" for name, of, value, _ in (own, *page)
    ).encode()


def _inside(labels: Mapping[str, str]) -> str:
    return ",".join(f'{label}="{value}"' for label, value in labels.items())


@contextmanager
def showing(*pages: Scrape) -> Iterator[str]:
    """A server with these pages, one after the other; the last one again and again."""
    left = [*pages]
    with answering(
        lambda _: Answer(200, in_text(left.pop(0) if len(left) > 1 else left[0]))
    ) as url:
        yield url


def laws_found(url: str | None, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    monkeypatch.setattr(doctor, "_BETWEEN_PAGES_SECONDS", 0.0)
    report = examine({"VLLM_OMNI_METRICS": "1"}, url, **options)
    return [found.message for found in report.findings if found.check.startswith("law_")]


def test_doctor_names_the_numbers_of_a_broken_law_and_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with showing(accepted(5, 2, 9)) as url:
        (message,) = laws_found(url, monkeypatch)
    assert "(7) are not those that arrived (9)" in message
    assert "API server" in message


def test_doctor_looks_again_before_it_calls_a_law_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with showing(accepted(5, 2, 9), accepted(7, 2, 9)) as url:
        assert laws_found(url, monkeypatch) == []


def test_doctor_is_content_with_one_page_that_keeps_the_laws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with showing(accepted(7, 2, 9), accepted(5, 2, 90)) as url:
        assert laws_found(url, monkeypatch) == []


# Over time


def remembering(pages: Sequence[Scrape], **labels: str) -> list[dict[str, Any]]:
    """What Prometheus answers for a server that showed these pages, minute after minute."""
    target = {"job": "j", "instance": "a:8000", **labels}
    series: dict[tuple[str, ...], dict[str, Any]] = {}
    for minute, page in enumerate(pages):
        for name, of_sample, value, _ in page:
            metric = {"__name__": name, **target, **of_sample}
            row = series.setdefault(tuple(metric.values()), {"metric": metric, "values": []})
            row["values"].append([1_700_000_000 + 60 * minute, str(value)])
    return list(series.values())


@contextmanager
def prometheus_with(*series: dict[str, Any], asked: list[str] | None = None) -> Iterator[str]:
    def answer(path: str) -> Answer:
        if asked is not None:
            asked.append(path)
        content = {"status": "success", "data": {"resultType": "matrix", "result": series}}
        return Answer(200, json.dumps(content).encode())

    with answering(answer) as url:
        yield url


KEPT = [accepted(n, 1, n + 1) for n in range(5)]
LOST = [*KEPT, *(accepted(n, 1, n + 3) for n in range(5, 10)), *[accepted(10, 0, 12)] * 4]


def test_doctor_finds_what_a_server_broke_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with prometheus_with(*remembering(LOST), *remembering(KEPT, instance="b:8000")) as url:
        (message,) = laws_found(None, monkeypatch, prometheus_url=url)
    assert message.startswith("j a:8000: the requests that have ended or are open (10) are not")
    assert "(12)" in message
    assert "seen at 3 moments, last at 2023-11-14 22:26:20 UTC" in message


def test_doctor_finds_nothing_where_all_laws_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    with prometheus_with(*remembering(KEPT)) as url:
        assert laws_found(None, monkeypatch, prometheus_url=url) == []


def test_server_that_was_restarted_breaks_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    with prometheus_with(*remembering([*KEPT, *KEPT])) as url:
        assert laws_found(None, monkeypatch, prometheus_url=url) == []


def test_names_that_lost_their_colons_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    series = remembering(LOST)
    for row in series:
        row["metric"]["__name__"] = row["metric"]["__name__"].replace(":", "_")
    with prometheus_with(*series) as url:
        assert len(laws_found(None, monkeypatch, prometheus_url=url)) == 1


def test_prometheus_is_asked_for_the_hours_and_families_that_are_needed() -> None:
    asked: list[str] = []
    with prometheus_with(asked=asked) as url:
        prometheus.judge(f"{url}/", 2.5)
    (path,) = asked
    query = {k: v for k, (v,) in urllib.parse.parse_qs(path.partition("?")[2]).items()}
    assert path.startswith("/api/v1/query_range?")
    assert float(query["end"]) - float(query["start"]) == pytest.approx(9000)
    assert float(query["step"]) == 60
    assert abs(float(query["end"]) - time.time()) < 600
    for law in LAWS:
        for part in (*law.left.parts, *law.right.parts):
            assert part.sample.replace(":", "[:_]") in query["query"]


def test_prometheus_is_not_asked_for_more_moments_than_it_answers() -> None:
    asked: list[str] = []
    with prometheus_with(asked=asked) as url:
        prometheus.judge(url, 24 * 30)
    query = {k: v for k, (v,) in urllib.parse.parse_qs(asked[0].partition("?")[2]).items()}
    assert (float(query["end"]) - float(query["start"])) / float(query["step"]) < 11_000


@pytest.mark.parametrize("hours", ["0", "-1", "soon", "inf", "nan"])
def test_what_is_no_number_of_hours_is_refused(
    hours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--prometheus", "http://127.0.0.1:9", f"--hours={hours}"])
    assert f"{hours!r} is no number of hours" in capsys.readouterr().err


def test_prometheus_that_knows_no_server_is_said() -> None:
    with prometheus_with() as url:
        (found,) = prometheus.judge(url, 1)
    assert (found.severity, found.check) == ("broken", "prometheus")
    assert url in found.message


@pytest.mark.parametrize("answer", [Answer(200, b"nonsense"), Answer(200, b"[]"), Answer(500, b"")])
def test_address_that_is_no_prometheus_is_said(answer: Answer) -> None:
    with answering(lambda _: answer) as url, pytest.raises(NoAnswerError, match="/query_range"):
        prometheus.judge(url, 1)


def test_command_reports_what_prometheus_remembers(capsys: pytest.CaptureFixture[str]) -> None:
    with prometheus_with(*remembering(LOST)) as url:
        cli.main(["doctor", "--json", "--prometheus", url, "--hours", "3"])
        report = json.loads(capsys.readouterr().out)
        assert cli.main(["doctor", "--prometheus", url]) != 0
    assert report["prometheus"] == url
    assert [f["check"] for f in report["findings"] if f["check"].startswith("law_")] == [
        "law_accepted"
    ]
    assert report["patches"] == []
    shown = capsys.readouterr().out
    assert "law_accepted" in shown
    assert url in shown


def test_command_says_that_prometheus_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--prometheus", "http://127.0.0.1:9"]) == 2
    assert "http://127.0.0.1:9/api/v1/query_range does not answer" in capsys.readouterr().out
