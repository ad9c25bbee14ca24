"""Replicas that join, leave and die at run time; the tests of this file build on one another."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq.auth

from testbed.clients import audio
from testbed.distributed import DistributedServer
from testbed.server import HOST, end_session, free_port
from tests.e2e.conftest import ON, observing, settled
from tests.e2e.engine import engine_has
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

JOIN_SECONDS = 300.0
LEAVE_SECONDS = 120.0


@pytest.fixture(scope="module")
def server(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DistributedServer]:
    _, key = zmq.auth.create_certificates(str(tmp_path_factory.mktemp("keys")), "omni")
    channel = {
        "VLLM_OMNI_METRICS_CHANNEL": f"tcp://{HOST}:{free_port()}",
        "VLLM_OMNI_METRICS_CHANNEL_KEY": key,
    }
    running = DistributedServer(env={**ON, **channel}, log_path=logs / "distributed.log")
    with running:
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
        audio.speech(server.url, tokens=10)
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
        answers = [audio.speech(server.url, tokens=10) for _ in range(4)]

    assert all(answer.status == 200 for answer in answers), answers
    frames = seen.gained.by("vllm:omni_audio_frames_total", "replica", stage="1")
    assert sum(frames.values()) == sum(answer.samples for answer in answers)
    assert set(frames) == {"0", "1"}
    successes = seen.gained.by("vllm:request_success_total", "replica", stage="1")
    spoken = seen.gained.by("vllm:omni_audio_duration_seconds_count", "replica", stage="1")
    assert successes == spoken
    assert sum(successes.values()) == len(answers)


def test_transfers_of_replicas_that_run_apart_reach_the_server(server: DistributedServer) -> None:
    name = "vllm:omni_transfer_in_flight_time_ms_count"
    before = scrape(server.url)
    for _ in range(2):
        audio.speech(server.url, tokens=10)
    after = settled(server, lambda seen: set((seen - before).by(name, "to_replica")) == {"0", "1"})
    gained = after - before

    hops = gained.by(name, "to_replica", from_stage="0", from_replica="0", to_stage="1")
    assert set(hops) == {"0", "1"}
    assert hops["0"] == hops["1"], "the same request to each of them"
    for family in ("transfer_size_bytes", "transfer_tx_time_ms", "transfer_rx_decode_time_ms"):
        assert gained.by(f"vllm:omni_{family}_count", "to_replica") == hops, family


def test_replica_that_leaves_is_no_longer_exposed(server: DistributedServer) -> None:
    end_session(server.members[1])
    after = settled(server, lambda seen: vocoders(seen) == {"0"}, LEAVE_SECONDS)

    assert vocoders(after) == {"0"}
    assert per_engine_families(after, "1") == set()
    assert audio.speech(server.url, tokens=10).status == 200


def test_replica_that_was_killed_is_no_longer_exposed_and_another_takes_its_place(
    server: DistributedServer,
) -> None:
    server.join()
    joined = settled(server, lambda seen: len(vocoders(seen)) == 2, JOIN_SECONDS)
    newcomer = (vocoders(joined) - {"0"}).pop()

    os.killpg(server.members[2].pid, signal.SIGKILL)
    with observing(server) as seen:
        answers = [audio.speech(server.url, tokens=10) for _ in range(4)]
    after = settled(server, lambda seen: vocoders(seen) == {"0"}, LEAVE_SECONDS)

    assert per_engine_families(after, newcomer) == set()
    if engine_has("speech that fails is answered with 500"):
        answers = [answer for answer in answers if answer.accepted]
    assert seen.gained.sum("vllm:omni_requests_success_total") == len(answers)
    assert audio.speech(server.url, tokens=10).status == 200
