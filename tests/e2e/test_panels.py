"""The dashboards' panels on a real Prometheus that scrapes a real server.

What panels make of rates they make of exact differences here, between a scrape of the idle server
before the traffic and one after it, so that counts are the client's.
"""

from __future__ import annotations

import functools
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed.clients import audio
from testbed.clients.audio import Answer
from testbed.prometheus import Element, Prometheus
from testbed.server import Server, binary
from tests.e2e.conftest import ON, is_lawful, outcomes, settled
from tests.operators_kit import Asked, asked_by_panels
from tests.promql import known, read
from vllm_omni_metrics_plugin.scrape import Scrape

POD = "panels-0"
#: Until Prometheus has scraped once more, however busy the machine is.
SECONDS = 90.0
PANELS = [*asked_by_panels()]
KNOWN = known({})
_RATE = re.compile(r"rate\(([^\[\]]+)\[\$__rate_interval\]\)")


@dataclass
class Watched:
    """What Prometheus has seen of some traffic, and what the client knows of it."""

    prometheus: Prometheus
    model: str
    #: The time of a scrape before the traffic.
    began: float
    #: What the server's own page gained.
    gained: Scrape
    after: Scrape
    answers: list[Answer]

    def tell(self, panel: Asked) -> list[Element]:
        """What the panel shows of the traffic, as a count in the place of each rate."""
        exact = _RATE.sub(rf"(\1 - (\1 @ {self.began:.3f}))", panel.expression)
        return self.prometheus.ask(filled(exact, self.model))

    def by_title(self, board: str, title: str) -> list[Element]:
        (panel,) = (p for p in PANELS if p.where == f"{board}: {title} A")
        return self.tell(panel)


def filled(expression: str, model: str) -> str:
    values = {"$job": "testbed", "$model_name": model, "$stage": ".*", "$replica": ".*"}
    return re.sub(r"\$\w+", lambda name: values.get(name.group(), "5s"), expression)


def scraped(prometheus: Prometheus) -> float:
    """The time of a scrape that began after now."""
    now = time.time()
    deadline = time.monotonic() + SECONDS
    while True:
        found = prometheus.ask(f'timestamp(up{{pod="{POD}"}})')
        if found and found[0].value > now:
            return found[0].value
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def watched(speech_server: Server, prometheus: Prometheus) -> Iterator[Watched]:
    for _ in range(2):  # the first request of each replica pays for things that no later one does
        audio.speech(speech_server.url)
    before = settled(speech_server, is_lawful)
    prometheus.watch(speech_server.url, pod=POD)
    began = scraped(prometheus)
    speak = functools.partial(audio.speech, speech_server.url)
    calls = [functools.partial(speak, stream="audio")] * 5 + [speak] * 2
    answers = audio.together(calls, at_once=3)
    after = settled(speech_server, is_lawful)
    scraped(prometheus)
    yield Watched(prometheus, speech_server.model, began, after - before, after, answers)
    prometheus.forget(speech_server.url)


def applies(watched: Watched, panel: Asked) -> bool:
    """Whether there was traffic of all that the panel is about."""
    return all(
        watched.gained.sum(name) > 0 if KNOWN.counts[name] else watched.after.named(name)
        for name in read(panel.expression, KNOWN).names
    )


def test_every_panel_about_what_happened_has_data(watched: Watched) -> None:
    about = [panel for panel in PANELS if applies(watched, panel)]
    assert {panel.where.partition(":")[0] for panel in about} == {"overview", "speech", "stages"}
    assert len(about) > 50
    assert [panel.where for panel in about if not watched.tell(panel)] == []


def test_no_panel_shows_what_is_no_number(watched: Watched) -> None:
    """Of the traffic, and of the seconds in which nothing happens any more."""
    for panel in PANELS:
        quiet = watched.prometheus.ask(filled(panel.expression, watched.model))
        shown = [*watched.tell(panel), *quiet]
        assert not any(math.isnan(element.value) for element in shown), panel.where


def test_panels_show_what_the_client_counted(watched: Watched) -> None:
    answers = watched.answers
    assert {answer.status for answer in answers} == {200}
    streamed = [answer for answer in answers if answer.first_audio_seconds is not None]
    shown = {
        title: round(sum(element.value for element in watched.by_title(board, title)), 6)
        for board, title in (
            ("overview", "Requests by outcome"),
            ("overview", "Share of errors"),
            ("speech", "Samples, per second"),
            ("speech", "Speech made"),
            ("speech", "How streams end, per second"),
            ("overview", "Where the time to the end goes"),
            ("overview", "Open requests"),
        )
    }
    assert shown == {
        "Requests by outcome": len(answers),
        "Share of errors": 0,
        "Samples, per second": sum(answer.samples for answer in answers),
        "Speech made": round(sum(answer.audio_seconds for answer in answers), 6),
        "How streams end, per second": len(streamed),
        "Where the time to the end goes": 1,
        "Open requests": 0,
    }
    by_outcome = watched.by_title("overview", "Requests by outcome")
    assert outcomes(watched.gained) == {
        element.labels["finished_reason"]: element.value for element in by_outcome if element.value
    }


def test_doctor_finds_no_law_broken_in_what_prometheus_remembers(
    watched: Watched, speech_server: Server
) -> None:
    done = subprocess.run(
        [
            *(binary("vllm-omni-metrics"), "doctor", "--json"),
            *("--prometheus", watched.prometheus.url),
        ],
        env={**speech_server.environment, **ON},
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(done.stdout)
    assert report["prometheus"] == watched.prometheus.url
    about = [f for f in report["findings"] if f["check"] == "prometheus" or "law_" in f["check"]]
    assert about == []
