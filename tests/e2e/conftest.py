"""Real servers, each started once per session and only when a test asks for it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testbed.clients.audio import Answer
from testbed.prometheus import Prometheus, UnavailableError
from testbed.server import Server, binary, free_port
from tests.e2e.access import logging_requests
from tests.e2e.verdicts import OBJECTIVES
from tests.openmetrics import strictly
from tests.otlp import Receiver
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor import laws
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

#: A sample's name and labels.
Series = tuple[str, frozenset[tuple[str, str]]]

ON = {"VLLM_OMNI_METRICS": "1"}
#: How the names of the patches begin that have a place only with sessions.
OF_SESSIONS = ("session_", "voice_")
PATHS = [law for law in laws.LAWS if law.name.startswith("path_to_")]
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def first_series() -> dict[str, set[Series]]:
    """By the url of a server, the series that it had before its first request."""
    return {}


@pytest.fixture(scope="session")
def pauses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test writes the seconds that a server's vocoders pause before each step."""
    return tmp_path_factory.mktemp("pauses") / "vocoder"


Pause = Callable[[str], None]


@pytest.fixture
def pause(pauses: Path) -> Iterator[Pause]:
    """Has the vocoders pause so many seconds before each of their next steps."""

    def write(seconds: str) -> None:
        pauses.write_text(seconds)

    yield write
    pauses.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def judging(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a server that judges requests."""
    file = tmp_path_factory.mktemp("objectives") / "slo.toml"
    file.write_text(OBJECTIVES)
    return {**ON, "VLLM_OMNI_METRICS_SLO": str(file)}


@pytest.fixture(scope="session")
def silence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test writes with how many seconds of silence the speech server's streams begin."""
    return tmp_path_factory.mktemp("silence") / "vocoder"


@pytest.fixture(scope="session")
def collector() -> Iterator[Receiver]:
    """Who receives the traces of all servers."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def tracing(collector: Receiver) -> dict[str, str]:
    """The environment of a server that traces the requests of clients who trace themselves."""
    return {
        "VLLM_OMNI_METRICS_TRACES": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


@pytest.fixture(scope="session")
def speech_server(
    logs: Path,
    first_series: dict[str, set[Series]],
    pauses: Path,
    silence: Path,
    judging: dict[str, str],
    tracing: dict[str, str],
) -> Iterator[Server]:
    """Speech, two replicas of the second stage, the engine's own statistics as they come.

    Its metrics are on a port of their own, too.
    """
    env = {
        **judging,
        **tracing,
        "VLLM_OMNI_CPU_PAUSES": str(pauses),
        "VLLM_OMNI_CPU_DELAYS": str(pauses.parent / "delays"),
        "VLLM_OMNI_CPU_SILENCE": str(silence),
        "VLLM_OMNI_METRICS_PORT": str(free_port()),
    }
    with Server("tts", replicas=2, env=env, log_path=logs / "speech.log") as server:
        first_series[server.url] = series(scrape(server.url))
        yield server


@pytest.fixture(scope="module")
def quiet_server(logs: Path) -> Iterator[Server]:
    """Speech, one replica each, whole outputs between stages, the engine's statistics off."""
    with Server(
        "tts",
        env=ON,
        args=("--disable-log-stats",),
        async_chunk=False,
        log_path=logs / "quiet.log",
    ) as server:
        yield server


@pytest.fixture(scope="session")
def chat_server(
    logs: Path,
    pauses: Path,
    judging: dict[str, str],
    tracing: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Chat that answers in text and audio: thinker, talker, code2wav; its requests are logged."""
    logged = logging_requests(tmp_path_factory.mktemp("chat"))
    env = {**judging, **tracing, **logged, "VLLM_OMNI_CPU_PAUSES": str(pauses)}
    with Server("omni", env=env, log_path=logs / "chat.log") as server:
        yield server


@pytest.fixture(scope="module")
def image_server(
    logs: Path, first_series: dict[str, set[Series]], tracing: dict[str, str]
) -> Iterator[Server]:
    """Images; the diffusion engine runs inside the server's own process, profiled by the engine."""
    profiled = ("--enable-diffusion-pipeline-profiler",)
    env = {**ON, **tracing}
    with Server("image", env=env, args=profiled, log_path=logs / "image.log") as server:
        first_series[server.url] = series(scrape(server.url))
        yield server


@pytest.fixture(scope="module")
def video_server(logs: Path) -> Iterator[Server]:
    """Videos; two diffusion engines in processes of their own."""
    with Server("video", replicas=2, env=ON, log_path=logs / "video.log") as server:
        yield server


@pytest.fixture(scope="module")
def mortal_server(logs: Path, tracing: dict[str, str]) -> Iterator[Server]:
    """Speech, two replicas of the second stage, for tests that kill them."""
    with Server("tts", replicas=2, env={**ON, **tracing}, log_path=logs / "mortal.log") as server:
        yield server


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes, every second, what a test has it watch."""
    folder = tmp_path_factory.mktemp("prometheus")
    try:
        server = Prometheus(folder, features=("exemplar-storage",))
    except UnavailableError as reason:
        pytest.skip(str(reason))
    with server:
        yield server


class Page(NamedTuple):
    """A page as it came over the wire."""

    headers: Mapping[str, str]
    body: bytes


def page(url: str, accept: str = "", path: str = "/metrics", **headers: str) -> Page:
    """What a server shows to who accepts this."""
    request = urllib.request.Request(f"{url}{path}", headers={"Accept": accept, **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return Page(answer.headers, answer.read())


@dataclass
class Observation:
    """What /metrics gained while something happened, and what it said in the end."""

    gained: Scrape = field(default_factory=Scrape)
    after: Scrape = field(default_factory=Scrape)


@contextmanager
def observing(
    server: Server, is_over: Callable[[Scrape], bool] = lambda seen: True
) -> Iterator[Observation]:
    """Compare /metrics before and after the block, once the server is idle and it ``is_over``."""

    def is_quiet(seen: Scrape) -> bool:
        return is_lawful(seen) and is_over(seen)

    observation = Observation()
    before = settled(server, is_quiet)
    yield observation
    observation.after = settled(server, is_quiet)
    assert list(map(str, laws.broken([observation.after]))) == []
    shown = page(server.url, OPENMETRICS)
    if shown.headers["content-type"].startswith("application/openmetrics-text"):
        strictly(shown.body)
    observation.gained = observation.after - before
    assert_paths_sum(observation.gained)


class Waiting(NamedTuple):
    """How many execute, and how many wait."""

    running: float
    waiting: float


class Load(NamedTuple):
    """What one scrape says of who waits and who executes."""

    whole: Waiting
    #: By stage and replica.
    stages: dict[tuple[str, str], Waiting]
    #: Requests that have ended since the beginning.
    ended: float


@contextmanager
def watching(server: Server, every_seconds: float = 0.02) -> Iterator[list[Load]]:
    """Scrape again and again while something happens."""
    before = scrape(server.url)
    loads: list[Load] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            loads.append(_load(scrape(server.url), before))
            stop.wait(every_seconds)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield loads
    finally:
        stop.set()
        thread.join()
    print(*dict.fromkeys(map(str, loads)), sep="\n")


def _load(now: Scrape, before: Scrape) -> Load:
    prefix = "vllm:omni_stage_requests"
    return Load(
        Waiting(
            now.sum("vllm:omni_num_requests_running"), now.sum("vllm:omni_num_requests_waiting")
        ),
        {
            (labels["stage"], labels["replica"]): Waiting(
                now.sum(f"{prefix}_running", **labels), now.sum(f"{prefix}_waiting", **labels)
            )
            for labels in now.label_sets(f"{prefix}_running")
        },
        sum(outcomes(now - before).values()),
    )


def settled(server: Server, condition: Callable[[Scrape], bool], seconds: float = 60.0) -> Scrape:
    """A scrape that meets ``condition``, or the last one taken within ``seconds``.

    A response ends for its client a moment before the engine has cleaned up behind it. The families
    of a scrape are read one after the other, so what changes meanwhile is in some of them only: the
    scrape after the first that meets the condition is the one that counts.
    """
    deadline = time.monotonic() + seconds
    met = False
    while True:
        seen = scrape(server.url)
        if (condition(seen) and met) or time.monotonic() > deadline:
            return seen
        met = condition(seen)
        time.sleep(0.05)


def series(seen: Scrape) -> set[Series]:
    """Those of the plugin's counters and histograms; gauges that say what is come and go."""
    return {
        (sample.name, frozenset(sample.labels.items()))
        for sample in seen.beginning(catalog.PREFIX)
        if sample.kind in ("counter", "histogram") and not sample.name.endswith("_created")
    }


def is_running(server: Server) -> bool:
    """Whether a stage executes a request."""
    return scrape(server.url).sum("vllm:omni_num_requests_running") > 0


def is_idle(seen: Scrape) -> bool:
    """Whether no request is open, and no engine goes on with one."""
    return not any(
        seen.sum(f"vllm:omni_{family}")
        for family in ("num_requests_running", "num_requests_waiting", "stage_requests_running")
    )


def is_lawful(seen: Scrape) -> bool:
    """Whether the server is idle, and the page so much of one moment that its numbers fit."""
    return is_idle(seen) and not laws.broken([seen])


def doctor(server: Server) -> tuple[int, dict[str, Any]]:
    """The exit status of the doctor, who is asked about a running server, and its report."""
    done = subprocess.run(
        [binary("vllm-omni-metrics"), "doctor", "--json", "--url", server.url],
        env={**server.environment, **ON},
        capture_output=True,
        text=True,
        timeout=120,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


LOAD = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


def assert_engines_idle(server: Server) -> None:
    """Every stage and replica that lives says that it has nothing to do.

    The engine alone would never say so, however long one waits.
    """
    seen = settled(server, lambda s: not any(s.sum(name) for name in LOAD))
    for name in LOAD:
        members = {(labels["stage"], labels["replica"]) for labels in seen.label_sets(name)}
        assert members == set(replicas(server)), name
        assert seen.sum(name) == 0, (name, seen.by(name, "stage"), seen.by(name, "replica"))


def replicas(server: Server) -> list[tuple[str, str]]:
    """The stage engines that run, as their labels say it."""
    return [(str(stage), str(replica)) for stage, replica in server.stage_processes()]


def path(gained: Scrape, anchor: str) -> dict[tuple[str, str], float]:
    """Seconds of requests' critical paths, by segment and stage."""
    name = "vllm:omni_critical_path_seconds_total"
    found = (labels for labels in gained.label_sets(name) if labels["anchor"] == anchor)
    return {(labels["segment"], labels["stage"]): gained.sum(name, **labels) for labels in found}


def assert_paths_sum(gained: Scrape) -> None:
    """The segments of all requests are the time of all requests, to each of both moments.

    The law about the first packet is stricter here: only images of a request that failed have no
    time to the first of them, and videos never have.
    """
    assert list(map(str, laws.broken([gained], PATHS))) == []
    if not (
        gained.sum("vllm:omni_requests_failed_total") or gained.sum("vllm:omni_video_frames_total")
    ):
        first = sum(path(gained, "first_packet").values())
        until_first = gained.sum("vllm:omni_audio_ttfp_seconds_sum")
        until_first += gained.sum("vllm:omni_image_ttfp_seconds_sum")
        assert first == pytest.approx(until_first, abs=1e-6), path(gained, "first_packet")


def outcomes(gained: Scrape) -> dict[str, float]:
    return gained.by("vllm:omni_requests_success_total", "finished_reason")


def failures(gained: Scrape) -> dict[str, float]:
    return gained.by("vllm:omni_requests_failed_total", "reason")


def assert_times_agree(
    measure: Callable[[], list[tuple[float, float]]],
    apart_seconds: float = 0.015,
    attempts: int = 3,
) -> None:
    """Client's and server's view of each duration are 15 ms or 5 % apart at most.

    ``measure`` makes a request and returns its (client, server) seconds. A client that shares two
    cores with the server, and whatever else runs, is itself late now and then, so only so many of
    many ``attempts`` have to agree; a server that is wrong is wrong every time.
    """
    apart: list[list[tuple[float, float]]] = []
    agreed = 0
    while agreed < attempts and len(apart) < 25:
        pairs = measure()
        if all(abs(ours - theirs) <= max(apart_seconds, 0.05 * theirs) for theirs, ours in pairs):
            agreed += 1
        else:
            apart.append(pairs)
    assert agreed == attempts, f"apart, as (client, server) seconds: {apart}"


def assert_counts_agree(
    gained: Scrape,
    answers: list[Answer],
    model: str,
    *,
    engine_streams: bool = True,
    starts_are_heard: bool = True,
) -> None:
    """Every count that an undisturbed client can make itself, exactly.

    ``engine_streams=False``: the engine hands whole outputs to the endpoints that stream.
    ``starts_are_heard=False``: not by the server that has the request, and its times are missing.
    """
    assert all(answer.status in (101, 200) and not answer.error for answer in answers), answers
    voiced = [answer for answer in answers if answer.samples]
    streamed = [answer for answer in voiced if answer.first_audio_seconds is not None]
    labels = {"model_name": model}

    def count(family: str) -> float:
        return gained.sum(f"vllm:omni_{family}", **labels)

    said = {
        "requests": sum(outcomes(gained).values()),
        "e2e": count("e2e_request_latency_seconds_count"),
        "queued": count("request_queue_time_seconds_count"),
        "frames": count("audio_frames_total"),
        "durations": count("audio_duration_seconds_count"),
        "seconds": round(count("audio_duration_seconds_sum"), 6),
        "rtfs": count("audio_rtf_count"),
        "first packets": count("audio_ttfp_seconds_count"),
        "streams": count("audio_streams_total"),
        "missing": gained.sum("vllm:omni_metrics_missing_samples_total"),
    }
    counted = {
        "requests": len(answers),
        "e2e": len(answers),
        "queued": len(answers),
        "frames": sum(answer.samples for answer in answers),
        "durations": len(voiced),
        "seconds": round(sum(answer.audio_seconds for answer in answers), 6),
        "rtfs": len(voiced),
        "first packets": len(streamed) if engine_streams else 0,
        "streams": len(streamed) if engine_streams else 0,
        "missing": 0,
    }
    if not starts_are_heard:
        unheard = ("unknown_start", "unknown_end", "unknown_input")
        said["missing"] -= sum(
            gained.sum("vllm:omni_metrics_missing_samples_total", reason=reason)
            for reason in unheard
        )
        missed = gained.sum(
            "vllm:omni_metrics_missing_samples_total",
            family="vllm:omni_request_queue_time_seconds",
            reason="unknown_start",
        )
        said["queued"] += missed
    missing = "vllm:omni_metrics_missing_samples_total"
    lacking = [(labels, gained.sum(missing, **labels)) for labels in gained.label_sets(missing)]
    assert said == counted, [one for one in lacking if one[1]]
    assert set(outcomes(gained)) <= {"stop", "length"}
