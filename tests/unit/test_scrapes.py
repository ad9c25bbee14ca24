"""Scrapes of one registry: one at a time, off the loop, shared, and answered whatever fails."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.exposition.accept import Wish
from vllm_omni_metrics_plugin.exposition.answers import Answers
from vllm_omni_metrics_plugin.exposition.page import Page
from vllm_omni_metrics_plugin.exposition.scrapes import Answer, Scrapes

SECONDS = 60.0
OPENMETRICS = [(b"accept", b"application/openmetrics-text;version=1.0.0")]


class Slow:
    """A collector that answers when it may; counts how often it is asked, and by whom."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = threading.Semaphore(0)
        self.times = 0
        self.at_once = 0
        self.most_at_once = 0
        self.threads: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.times += 1
        self.threads.add(threading.current_thread().name)
        self.asked.release()
        assert self.may.wait(SECONDS)
        self.at_once -= 1
        return [GaugeMetricFamily("slow", "-", value=self.times)]

    def describe(self) -> Iterable[Metric]:
        return []


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def slow(registry: CollectorRegistry) -> Iterator[Slow]:
    collector = Slow()
    registry.register(collector)
    yield collector
    collector.may.set()


def test_one_scrape_at_a_time_and_who_asks_meanwhile_shares_the_next(
    registry: CollectorRegistry, slow: Slow
) -> None:
    scrapes = Scrapes(registry)
    first = scrapes.ask(Wish())
    assert slow.asked.acquire(timeout=SECONDS)
    later = [scrapes.ask(Wish()) for _ in range(5)]
    compressed = scrapes.ask(Wish(gzip=True))
    slow.may.set()
    assert body(first) == b"".join(page(1))
    # The first was begun before they asked: what it shows may be older than their question.
    assert {body(answer) for answer in later} == {b"".join(page(2))}
    assert gzip.decompress(body(compressed)) == b"".join(page(3))
    assert slow.most_at_once == 1
    assert slow.times == 3


def body(answer: Future[Answer]) -> bytes:
    return b"".join(answer.result(SECONDS).pieces)


def page(value: int) -> Iterator[bytes]:
    yield b"# HELP slow -\n# TYPE slow gauge\n"
    yield f"slow {float(value)}\n".encode()


def test_page_that_cannot_be_written_is_prometheus_clients(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    Counter("vllm:c", "-", registry=registry).inc()
    for name in ("text", "openmetrics"):
        monkeypatch.setattr(Page, name, raises)
    scrapes = Scrapes(registry)
    for wish in (Wish(), Wish("openmetrics")):
        pieces, headers = scrapes.ask(wish).result(SECONDS)
        assert list(pieces) == [generate_latest(registry)]
        assert dict(headers)["content-type"].startswith("text/plain")
    assert internal_errors.errors.counts() == {"writing /metrics": 2}


def raises(*_: object) -> bytes:
    raise RuntimeError("on purpose")


def test_collector_that_fails_fails_its_scrape_and_no_later_one(
    registry: CollectorRegistry,
) -> None:
    class Failing:
        fails = True

        def describe(self) -> Iterable[Metric]:
            return []

        def collect(self) -> Iterable[Metric]:
            if self.fails:
                raise OSError("no such sensor")
            return []

    failing = Failing()
    registry.register(failing)
    scrapes = Scrapes(registry)
    with pytest.raises(OSError, match="no such sensor"):
        scrapes.ask(Wish()).result(SECONDS)
    failing.fails = False
    assert body(scrapes.ask(Wish())) == b""
    assert internal_errors.errors.counts() == {}, "not ours"


@pytest.mark.parametrize("format_", ["text", "openmetrics"])
def test_samples_that_are_named_come_alone(registry: CollectorRegistry, format_: Any) -> None:
    for name in ("vllm:one", "vllm:other"):
        Gauge(name, "-", registry=registry).set(1)
    shown = body(Scrapes(registry).ask(Wish(format_, names=("vllm:one",))))
    end = b"# EOF\n" if format_ == "openmetrics" else b""
    assert shown == b"# HELP vllm:one -\n# TYPE vllm:one gauge\nvllm:one 1.0\n" + end


class Client:
    """One HTTP request, as an ASGI server hands it over."""

    def __init__(
        self, method: str = "GET", headers: Iterable[tuple[bytes, bytes]] = (), query: bytes = b""
    ) -> None:
        self.scope = {
            **{"type": "http", "method": method, "path": "/metrics"},
            **{"headers": list(headers), "query_string": query},
        }
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        raise AssertionError("nobody has to wait for a body")

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        *parts, last = self.sent[1:]
        assert all(part["more_body"] for part in parts)
        assert not last.get("more_body")
        return b"".join(part["body"] for part in self.sent[1:])


async def engine(scope: Any, receive: Any, send: Any) -> None:
    """What has answered so far."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the engine's"})


def answered(registry: CollectorRegistry, client: Client) -> Client:
    application = Answers().application(registry, engine)
    asyncio.run(application(client.scope, client.receive, client.send))
    return client


def test_answer_says_what_it_is(registry: CollectorRegistry) -> None:
    Counter("vllm:c", "-", registry=registry).inc()
    text = answered(registry, Client())
    assert (text.status, text.body) == (200, generate_latest(registry))
    assert text.headers == {
        b"content-type": b"text/plain; version=0.0.4; charset=utf-8",
        b"content-length": str(len(text.body)).encode(),
    }
    compressed = answered(registry, Client(headers=[(b"Accept-Encoding", b"br"), *GZIP]))
    assert compressed.headers[b"content-encoding"] == b"gzip"
    assert gzip.decompress(compressed.body) == text.body
    other = answered(registry, Client(headers=OPENMETRICS))
    assert (
        other.headers[b"content-type"]
        == b"application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert other.body.endswith(b"# EOF\n")
    assert b"# TYPE vllm:c counter\nvllm:c_total 1.0\n" in other.body


GZIP = [(b"accept-encoding", b"gzip")]


def test_head_has_no_body_and_other_methods_are_not_for_metrics(
    registry: CollectorRegistry,
) -> None:
    Counter("vllm:c", "-", registry=registry).inc()
    head = answered(registry, Client("HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers[b"content-length"]) == len(generate_latest(registry))
    post = answered(registry, Client("POST"))
    assert (post.status, post.headers[b"allow"]) == (405, b"GET, HEAD")


def test_query_is_read(registry: CollectorRegistry) -> None:
    Gauge("vllm:one", "-", registry=registry)
    Gauge("vllm:other", "-", registry=registry)
    assert b"other" not in answered(registry, Client(query=b"name[]=vllm:one")).body


def test_engine_answers_where_we_cannot(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scrapes, "ask", raises)
    assert answered(registry, Client()).body == b"the engine's"
    assert internal_errors.errors.counts() == {"answering a scrape": 1}


def test_loop_goes_on_while_a_page_is_written(registry: CollectorRegistry, slow: Slow) -> None:
    application = Answers().application(registry, engine)

    async def scrape_and_live() -> Client:
        client = Client()
        scrape = asyncio.ensure_future(application(client.scope, client.receive, client.send))
        while not slow.times:
            await asyncio.sleep(0)
        slow.may.set()
        await scrape
        return client

    assert asyncio.run(asyncio.wait_for(scrape_and_live(), SECONDS)).status == 200
    assert slow.threads == {"omni-metrics-scrapes"}


def test_client_that_leaves_takes_no_other_answer_along(
    registry: CollectorRegistry, slow: Slow
) -> None:
    answers = Answers()
    application = answers.application(registry, engine)

    async def scrapes() -> list[Client]:
        clients = [Client() for _ in range(4)]
        tasks = [
            asyncio.ensure_future(application(each.scope, each.receive, each.send))
            for each in clients
        ]
        while not slow.times:
            await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        slow.may.set()
        await asyncio.gather(*tasks[2:])
        return clients

    left, also_left, *stayed = asyncio.run(asyncio.wait_for(scrapes(), SECONDS))
    assert (left.sent, also_left.sent) == ([], [])
    assert {client.status for client in stayed} == {200}


def test_families_of_one_of_several_servers_are_not_shown_beside_those_of_all(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    Counter("http_requests", "-", registry=registry).inc()
    assert answered(registry, Client()).body == b""


def test_a_registry_has_one_queue_whoever_asks(registry: CollectorRegistry) -> None:
    answers = Answers()
    assert answers.scrapes(registry) is answers.scrapes(registry)
    assert answers.scrapes(registry) is not answers.scrapes(CollectorRegistry())
