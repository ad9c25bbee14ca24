"""Two API servers that share one engine; the tests of this file build on one another.

A connection goes to either of them, and so does a scrape.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from testbed.clients import audio
from testbed.clients.audio import Answer
from testbed.server import Server
from tests.e2e.conftest import (
    assert_counts_agree,
    assert_engines_idle,
    is_idle,
    is_running,
    observing,
    outcomes,
    settled,
)
from tests.e2e.engine import RELEASE, TRAITS, engine_has
from tests.e2e.ledger import COUNTED, Ledger, Seen, edge, edges
from tests.e2e.verdicts import assert_verdicts_agree, verdicts
from vllm_omni_metrics_plugin.scrape import Scrape, parse, scrape

SEVERAL = "several API servers"
pytestmark = pytest.mark.skipif(
    not engine_has(SEVERAL), reason=f"vllm-omni {RELEASE}: {TRAITS[SEVERAL].otherwise}"
)

#: What the tiny talker's vocoder makes of every codec token but the first.
SAMPLES_PER_TOKEN = 1920
REQUESTS = "vllm:omni_requests_success_total"
END_SECONDS = 120.0


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers keep their numbers; of our own, so that it outlives them."""
    return tmp_path_factory.mktemp("numbers")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def server(numbers: Path, ledger: Ledger, logs: Path, judging: dict[str, str]) -> Iterator[Server]:
    environment = {**judging, **ledger.environment, "PROMETHEUS_MULTIPROC_DIR": str(numbers)}
    with Server(
        "tts",
        env=environment,
        args=("--api-server-count", "2"),
        log_path=logs / "several.log",
    ) as running:
        yield running


def files(numbers: Path) -> Scrape:
    """All that the servers, ended ones included, have ever written, as a scrape adds it up."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(numbers))  # type: ignore[no-untyped-call]
    return parse(generate_latest(registry).decode())


def served(server: Server, numbers: Path) -> dict[int, float]:
    """Requests that ended, by API server."""
    counts: dict[int, float] = {}
    for number, pid in server.api_processes().items():
        written = [str(file) for file in numbers.glob(f"counter_{pid}.db")]
        counts[number] = sum(
            sample.value
            for metric in MultiProcessCollector.merge(written)  # type: ignore[no-untyped-call]
            for sample in metric.samples
            if sample.name == REQUESTS
        )
    return counts


def ask_until_each_has_served(server: Server, numbers: Path) -> list[Answer]:
    """Which of them takes a connection is the kernel's choice; it never takes the same for long."""
    kinds: tuple[tuple[int, audio.Stream | None], ...]
    kinds = ((10, None), (20, "audio"), (15, "sse"))
    calls = [
        functools.partial(audio.speech, server.url, tokens=tokens, stream=stream)
        for tokens, stream in kinds
    ]
    before = served(server, numbers)
    answers: list[Answer] = []
    for _ in range(60):
        answers += audio.together(calls, at_once=3)
        now = served(server, numbers)
        if all(now[number] > before[number] for number in now):
            break
    assert len(before) == 2, before
    return answers


def test_counts_of_both_servers_together_are_the_clients(server: Server, numbers: Path) -> None:
    before = served(server, numbers)
    with observing(server) as seen:
        answers = ask_until_each_has_served(server, numbers)
    after = served(server, numbers)

    assert_counts_agree(seen.gained, answers, server.model, starts_are_heard=False)
    shares = {number: after[number] - before[number] for number in after}
    assert min(shares.values()) > 0, f"one of them served nothing: {shares}"
    assert sum(shares.values()) == len(answers), shares
    assert sum(verdicts(seen.gained, "everything").values()) == len(answers)
    assert_verdicts_agree(seen.gained, "sound")
    assert seen.after.value("vllm:omni_slo_target_ratio", objective="everything") == 0.9


def test_engine_families_of_both_servers_together_are_the_clients(
    server: Server, numbers: Path
) -> None:
    with observing(server) as seen:
        answers = ask_until_each_has_served(server, numbers)
    gained = seen.gained

    tokens = sum(answer.samples // SAMPLES_PER_TOKEN + 1 for answer in answers)
    assert gained.sum("vllm:generation_tokens_total", stage="0") == tokens
    prompt = gained.sum("vllm:prompt_tokens_total", stage="0")
    assert prompt > 0
    assert prompt % len(answers) == 0, "the same text each time"
    for name in ("request_success_total", "time_to_first_token_seconds_count"):
        by_stage = gained.by(f"vllm:{name}", "stage")
        assert by_stage == {"0": len(answers), "1": len(answers)}, name


def test_hops_of_both_servers_requests_are_the_ledgers(
    server: Server, numbers: Path, ledger: Ledger
) -> None:
    seen = Seen(server, ledger)
    answers = ask_until_each_has_served(server, numbers)
    gained, hops = seen.all()

    assert all(answer.status == 200 for answer in answers), answers
    counts = Counter(map(edge, hops))
    assert sum(counts.values()) >= len(answers)
    for family in COUNTED:
        assert edges(gained, f"{family}_count") == counts, family
    assert sum(edges(gained, "transfer_size_bytes_sum").values()) == sum(h.size for h in hops)


def test_request_shows_while_it_runs_and_gauges_are_0_after_it(server: Server) -> None:
    answer = audio.speech(server.url, tokens=900, hang_up_when=lambda: is_running(server))
    assert answer.hung_up
    seen = settled(server, is_idle)
    assert is_idle(seen), seen
    assert_engines_idle(server)


def test_scrapes_agree_whoever_answers_them(server: Server) -> None:
    settled(server, is_idle)
    assert_engines_idle(server)
    time.sleep(3.0)  # the hooks' own counts are published once a second
    scrapes = [scrape(server.url) for _ in range(16)]
    ours = [
        {
            (name, frozenset(labels.items())): seen.sum(name, **labels)
            for name in seen.names("vllm:")
            for labels in seen.label_sets(name)
        }
        for seen in scrapes
    ]
    assert len(ours[0]) > 300
    assert all(one == ours[0] for one in ours)


def test_nothing_is_split_by_process_and_information_is_shown_once(server: Server) -> None:
    seen = scrape(server.url)
    for name in seen.names("vllm:"):
        for labels in seen.label_sets(name):
            assert not {"pid", "engine"} & set(labels), name
    assert seen.by("vllm:omni_stage_info", "stage") == {"0": 1, "1": 1}
    assert seen.by("vllm:engine_sleep_state", "stage", sleep_state="awake") == {"0": 1, "1": 1}
    patches = seen.by("vllm:omni_metrics_patch_info", "patch")
    assert set(patches.values()) == {1.0}, patches
    accounts = seen.label_sets("vllm:omni_metrics_hook_listening")
    assert accounts == [], "nobody else listens, and the exporter never failed"


def test_nothing_that_was_counted_is_lost_with_a_server_that_is_killed(
    server: Server, numbers: Path
) -> None:
    answers = ask_until_each_has_served(server, numbers)
    assert all(answer.status == 200 for answer in answers), answers
    settled(server, is_idle)
    assert_engines_idle(server)
    before = files(numbers)
    assert sum(outcomes(before).values()) >= len(answers)

    os.kill(server.api_processes()[0], signal.SIGKILL)
    deadline = time.monotonic() + END_SECONDS
    while server.is_running():  # the engine ends all of them when it has lost one
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.2)

    after = files(numbers)
    counted = [
        name
        for name in before.names("vllm:")
        if name.endswith(("_total", "_sum", "_count", "_bucket")) and "metrics_hook_" not in name
    ]
    assert len(counted) > 50
    for name in counted:
        for labels in before.label_sets(name):
            was, now = before.value(name, **labels), after.value(name, **labels)
            assert was is not None
            assert now is not None, (name, labels)
            if name.startswith("vllm:omni_metrics_"):  # an end may find that something is missing
                assert now >= was, (name, labels)
            else:
                assert now == was, (name, labels)
    assert is_idle(after), after
