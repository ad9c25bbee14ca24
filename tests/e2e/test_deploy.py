"""The files for routers and autoscalers, on a real server and a real Prometheus that scrapes it.

The client knows how many requests it has open and since when, as one stage is stopped in the middle
of its work and goes on only when a test says so.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from testbed.clients import audio
from testbed.clients.router import Page
from testbed.prometheus import Element, Prometheus
from testbed.server import Server
from tests.deployed import DRAIN, NAMESPACE, Query, adapter, engine, keda
from tests.e2e.conftest import is_idle, settled
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

#: More than the first stage executes at once.
COUNT = 6
#: Come when the stage stands still, so that they wait however many have left it by then.
LATER = 2
ATTEMPTS = 5
EXECUTING = "vllm:omni_stage_requests_running"
RUNNING = "vllm:omni_num_requests_running"
WAITING = "vllm:omni_num_requests_waiting"
POD = "speech-0"
#: Until Prometheus has seen what there is to see, however busy the machine is.
SECONDS = 90.0
#: Instead of minutes, so that it is full of the time in which the stage was stopped.
WINDOW_SECONDS = 10

QUERIES = {**keda(), **adapter(POD)}


@pytest.fixture(scope="module")
def server(speech_server: Server) -> Server:
    for _ in range(2):  # the first request of each replica pays for things that no later one does
        audio.speech(speech_server.url)
    return speech_server


@pytest.fixture(scope="module")
def watching(server: Server, prometheus: Prometheus) -> Iterator[Prometheus]:
    """Prometheus, which scrapes the server as the pod that the queries are about."""
    prometheus.watch(server.url, namespace=NAMESPACE, pod=POD)
    yield prometheus
    prometheus.forget(server.url)


class Held:
    """Requests that stay open, as the process of the first stage is stopped."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stage = server.stage_processes()[0, 0]
        self._pool = ThreadPoolExecutor(ATTEMPTS * (COUNT + LATER))
        self._speak = functools.partial(audio.speech, server.url, tokens=240)
        self._calls: list[Future[audio.Answer]] = []
        self.began = time.time()
        for _ in range(ATTEMPTS):
            try:
                if self._holds():
                    break
            except BaseException:
                self.release()
                raise
            self.release()
        else:
            raise AssertionError(f"in {ATTEMPTS} attempts the stage had nothing to execute")
        self.since = time.time()

    def _holds(self) -> bool:
        """Whether the stage stands still while it executes some and others wait for it."""
        self._calls += [self._pool.submit(self._speak) for _ in range(COUNT)]
        settled(self._server, lambda now: now.sum(EXECUTING, stage="0") > 0)
        os.kill(self._stage, signal.SIGSTOP)
        self._calls += [self._pool.submit(self._speak) for _ in range(LATER)]
        time.sleep(1)  # until the server has heard what the stage had done by then
        seen = settled(self._server, self._is_still)
        return seen.sum(RUNNING) > 0 and seen.sum(WAITING) > 0

    def _is_still(self, now: Scrape) -> bool:
        """Whether all that run are in the stage; those that have left it come to their end."""
        return _open(now) == self.open and now.sum(RUNNING) == now.sum(EXECUTING, stage="0")

    @property
    def open(self) -> int:
        """As the client counts them."""
        return sum(not call.done() for call in self._calls)

    def release(self) -> None:
        os.kill(self._stage, signal.SIGCONT)

    def answers(self) -> list[audio.Answer]:
        answers = [call.result() for call in self._calls]
        self._pool.shutdown()
        return answers


def _open(now: Scrape) -> float:
    return now.sum(RUNNING) + now.sum(WAITING)


@pytest.fixture(scope="module")
def held(server: Server) -> Iterator[Held]:
    held = Held(server)
    yield held
    held.release()
    assert {answer.status for answer in held.answers()} == {200}


def told(prometheus: Prometheus, query: Query, is_right: Callable[[float], bool]) -> Element:
    """The one element that the answer is, right in two looks of different seconds."""
    deadline = time.monotonic() + SECONDS
    met = 0
    while True:
        found = prometheus.ask(query.text)
        assert len(found) <= 1, (query, found)
        met = met + 1 if found and is_right(found[0].value) else 0
        if met == 2:
            return found[0]
        assert time.monotonic() < deadline, (query, found)
        time.sleep(1.1)


def drain_of(server: Server, *, seconds: float) -> subprocess.Popen[str]:
    options = {"url": f"{server.url}/metrics", "seconds": seconds, "quiet": 0.5, "every": 0.1}
    return subprocess.Popen(
        [sys.executable, "-I", str(DRAIN), *(f"--{k}={v}" for k, v in options.items())],
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(drain: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, and what was said."""
    _, said = drain.communicate(timeout=2 * SECONDS)
    return drain.returncode, said


# Idle


def test_every_query_about_an_idle_server_is_one_element_of_0(
    server: Server, watching: Prometheus
) -> None:
    settled(server, is_idle)
    for query in QUERIES.values():
        if query.name != "omni_busiest_stage_ratio":  # what was asked before is in its window
            told(watching, query.about(server.model), lambda value: value == 0)


def test_drain_of_an_idle_server_ends_at_once(server: Server) -> None:
    settled(server, is_idle)
    drain = drain_of(server, seconds=SECONDS)
    assert ended(drain) == (0, "")


@pytest.mark.parametrize(
    "query", [q for q in QUERIES.values() if q.discovery], ids=lambda query: query.name
)
def test_adapter_discovers_the_series_of_each_rule(
    server: Server, watching: Prometheus, query: Query
) -> None:
    assert query.discovery is not None
    found = watching.series(query.discovery)
    assert {labels["pod"] for labels in found} == {POD}
    assert {labels["model_name"] for labels in found} == {server.model}
    if "stage_busy" not in query.discovery:
        assert len(found) == 1, found


# With requests that the client holds open


def test_routers_of_every_kind_read_the_clients_number(server: Server, held: Held) -> None:
    page = Page.of(server.url)
    waiting = page.read(engine()["queuedRequestsSpec"])
    running = page.read(engine()["runningRequestsSpec"])
    print(f"the client has {held.open} open; waiting {waiting}, running {running}")
    assert waiting.first + running.first == held.open
    assert len(set(waiting)) == len(set(running)) == 1
    assert running.first > 0
    assert waiting.first > 0
    print(f"of the engine's own: {page.read('vllm:num_requests_running')}")


@pytest.mark.parametrize("name", ["open-requests", "omni_open_requests"])
def test_open_requests_are_one_element_and_the_clients_number(
    server: Server, watching: Prometheus, held: Held, name: str
) -> None:
    query = QUERIES[name].about(server.model)
    element = told(watching, query, lambda value: value == held.open)
    assert element.labels == ({"pod": POD} if query.discovery else {})


@pytest.mark.parametrize("name", ["oldest-waiting", "omni_oldest_waiting_seconds"])
def test_oldest_waiting_is_one_element_and_the_clients_time(
    server: Server, watching: Prometheus, held: Held, name: str
) -> None:
    query = QUERIES[name].about(server.model)
    told(watching, query, lambda value: value > 0)
    # Which scrape the answer comes from is said by the family itself.
    scraped = Query(name, f"max(timestamp(vllm:omni_oldest_waiting_seconds{{pod='{POD}'}}))")
    earlier = told(watching, scraped, lambda value: value > held.since).value
    seconds = told(watching, query, lambda value: value > 0).value
    # At least as long as from when all had arrived to a scrape before the answer, at most as long
    # as from the first arrival to now.
    assert earlier - held.since <= seconds <= time.time() - held.began


def test_stage_that_executes_all_the_time_is_busy_all_the_time(
    server: Server, watching: Prometheus, held: Held
) -> None:
    query = QUERIES["omni_busiest_stage_ratio"]
    assert "[2m]" in query.text
    query = query._replace(text=query.text.replace("[2m]", f"[{WINDOW_SECONDS}s]"))
    time.sleep(max(0.0, held.since + WINDOW_SECONDS - time.time()))
    element = told(watching, query, lambda value: value == pytest.approx(1, abs=0.1))
    assert element.labels == {"pod": POD}


def test_drain_of_a_busy_server_gives_up_at_its_deadline(server: Server, held: Held) -> None:
    began = time.monotonic()
    drain = drain_of(server, seconds=3)
    said = f"drain: gave up after 3 s: {held.open} requests are open\n"
    assert ended(drain) == (1, said)
    assert time.monotonic() - began >= 3


def test_drain_ends_after_the_last_answer(server: Server, held: Held) -> None:
    drain = drain_of(server, seconds=SECONDS)
    time.sleep(1)
    assert drain.poll() is None
    held.release()
    answers = held.answers()
    assert ended(drain) == (0, "")
    assert all(answer.status == 200 and answer.samples for answer in answers), answers
    assert _open(scrape(server.url)) == 0
