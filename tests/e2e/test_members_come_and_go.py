"""Replicas that join, leave and die at run time; the tests of this file build on one another."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import client
from testbed.distributed import DistributedServer
from testbed.scrape import Scrape, scrape
from testbed.server import end_session
from tests.e2e.conftest import ON, observing, settled

JOIN_SECONDS = 120.0
LEAVE_SECONDS = 60.0


@pytest.fixture(scope="module")
def server(logs: Path) -> Iterator[DistributedServer]:
    with DistributedServer(env=ON, log_path=logs / "distributed.log") as running:
        yield running


def vocoders(seen: Scrape, family: str = "vllm:omni_stage_info") -> set[str]:
    """The second stage's replicas, as a family shows them."""
    return {labels["replica"] for labels in seen.label_sets(family) if labels.get("stage") == "1"}


def per_engine_families(seen: Scrape, replica: str) -> set[tuple[str, frozenset[str]]]:
    """Everything that is shown of a replica: the names and the values of their other labels."""
    return {
        (name, frozenset(f"{k}={v}" for k, v in labels.items() if k != "replica"))
        for name in seen.names("vllm:")
        if not name.startswith("vllm:omni_")
        for labels in seen.label_sets(name)
        if labels.get("stage") == "1" and labels["replica"] == replica
    }


def test_replica_that_joins_appears_in_every_family(server: DistributedServer) -> None:
    for _ in range(2):
        client.speech(server.url, tokens=10)
    before = scrape(server.url)
    assert vocoders(before) == {"0"}

    server.join()
    after = settled(server, lambda seen: vocoders(seen) == {"0", "1"}, JOIN_SECONDS)

    assert vocoders(after) == {"0", "1"}, server.log_tail()
    assert per_engine_families(after, "1") == per_engine_families(after, "0")
    for name in ("vllm:request_success_total", "vllm:time_to_first_token_seconds_count"):
        kept = after.sum(name, stage="1", replica="0")
        assert kept == before.sum(name, stage="1", replica="0") == 2, "others are not reset"


def test_both_replicas_serve_under_their_own_labels(server: DistributedServer) -> None:
    with observing(server) as seen:
        answers = [client.speech(server.url, tokens=10) for _ in range(4)]

    assert all(answer.status == 200 for answer in answers), answers
    frames = seen.gained.by("vllm:omni_audio_frames_total", "replica", stage="1")
    assert sum(frames.values()) == sum(answer.samples for answer in answers)
    assert set(frames) == {"0", "1"}
    successes = seen.gained.by("vllm:request_success_total", "replica", stage="1")
    spoken = seen.gained.by("vllm:omni_audio_duration_seconds_count", "replica", stage="1")
    assert successes == spoken
    assert sum(successes.values()) == len(answers)


def test_replica_that_leaves_is_no_longer_exposed(server: DistributedServer) -> None:
    end_session(server.members[1])
    after = settled(server, lambda seen: vocoders(seen) == {"0"}, LEAVE_SECONDS)

    assert vocoders(after) == {"0"}
    assert per_engine_families(after, "1") == set()
    assert client.speech(server.url, tokens=10).status == 200


def test_replica_that_was_killed_is_no_longer_exposed_and_another_takes_its_place(
    server: DistributedServer,
) -> None:
    server.join()
    joined = settled(server, lambda seen: len(vocoders(seen)) == 2, JOIN_SECONDS)
    newcomer = (vocoders(joined) - {"0"}).pop()

    os.killpg(server.members[2].pid, signal.SIGKILL)
    with observing(server) as seen:
        answers = [client.speech(server.url, tokens=10) for _ in range(4)]
    after = settled(server, lambda seen: vocoders(seen) == {"0"}, LEAVE_SECONDS)

    assert per_engine_families(after, newcomer) == set()
    accepted = sum(answer.accepted for answer in answers)
    assert seen.gained.sum("vllm:omni_requests_success_total") == accepted
    assert client.speech(server.url, tokens=10).status == 200
