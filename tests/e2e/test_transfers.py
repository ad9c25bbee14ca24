"""What moves between stages, on a server with several replicas of each, against a ledger."""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from testbed.clients import audio
from testbed.server import Server
from tests.e2e.conftest import ON, observing, outcomes, settled
from tests.e2e.ledger import COUNTED, TIMES, Edge, Ledger, Seen, edge, edges
from tests.unit.test_transfers import sent
from vllm_omni_metrics_plugin.channel import frames
from vllm_omni_metrics_plugin.channel.frames import Frame, WireEvent
from vllm_omni_metrics_plugin.scrape import scrape

#: Between the plugin's looks at the clock and the ledger's, which are inside of them.
APART_SECONDS = 0.02


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def server(ledger: Ledger, logs: Path) -> Iterator[Server]:
    with Server(
        "tts",
        # Both take turns: with as many of each, a sender would always have the same receiver.
        replicas=3,
        others=2,
        env={**ON, **ledger.environment},
        log_path=logs / "ledger.log",
    ) as running:
        for _ in range(6):
            audio.speech(running.url)
        yield running


def test_counts_and_bytes_of_each_edge_are_the_ledgers(server: Server, ledger: Ledger) -> None:
    seen = Seen(server, ledger)
    calls = [
        functools.partial(audio.speech, server.url, tokens=tokens, stream=stream)
        for tokens in (2, 12, 30)
        for stream in (None, "audio", "sse", "audio")
    ]
    with observing(server) as requests:
        answers = audio.together(calls, at_once=4)
    gained, hops = seen.all()

    assert all(answer.status == 200 for answer in answers), answers
    assert sum(outcomes(requests.gained).values()) == len(answers)
    counts = Counter(map(edge, hops))
    assert any(sender != receiver for _, sender, _, receiver in counts), "labels may be swapped"
    for family in COUNTED:
        assert edges(gained, f"{family}_count") == counts, family
    sizes: Counter[Edge] = Counter()
    for hop in hops:
        sizes[edge(hop)] += hop.size
    assert edges(gained, "transfer_size_bytes_sum") == sizes
    assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
    assert gained.sum("vllm:omni_metrics_dropped_events_total") == 0


def test_sending_flight_and_receiving_add_up_to_the_ledgers_time(
    server: Server, ledger: Ledger
) -> None:
    seen = Seen(server, ledger)
    for _ in range(3):
        audio.speech(server.url, tokens=20, stream="audio")
    gained, hops = seen.all()

    parts = [gained.sum(f"vllm:omni_{family}_sum") / 1000 for family in TIMES]
    assert all(seconds >= 0 for seconds in parts)
    whole = sum(hop.seconds for hop in hops)
    assert sum(parts) == pytest.approx(whole, abs=APART_SECONDS * len(hops)), (parts, whole)


def test_hops_of_a_listener_who_hangs_up_are_the_ledgers(server: Server, ledger: Ledger) -> None:
    seen = Seen(server, ledger)
    with observing(server) as requests:
        answer = audio.speech(server.url, tokens=250, stream="audio", hang_up_after_packets=3)
    gained, hops = seen.all()

    assert answer.hung_up
    assert outcomes(requests.gained) == {"abort": 1}
    assert edges(gained, "transfer_size_bytes_count") == Counter(map(edge, hops))


# The channel that they come by


@pytest.fixture
def channel(server: Server) -> str:
    """The address that the server handed down to its stage engines."""
    process = next(iter(server.stage_processes().values()))
    variables = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return next(
        variable.partition("=")[2]
        for variable in variables
        if variable.startswith("_OMNI_METRICS_CHANNEL=")
    )


def test_strangers_frames_are_dropped_counted_and_harm_nobody(server: Server, channel: str) -> None:
    before = scrape(server.url)
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.connect(channel)
        for _ in range(50):
            stranger.send(os.urandom(200))
        for _ in range(3):
            stranger.send(b"x" * (frames.MOST_BYTES + 1))
        reason = "vllm:omni_metrics_dropped_events_total"
        after = settled(
            server,
            lambda seen: (seen - before).by(reason, "reason") == {"garbage": 50, "oversized": 3},
        )
    assert (after - before).by(reason, "reason") == {"garbage": 50, "oversized": 3}
    assert audio.speech(server.url, tokens=10).status == 200


def test_flood_of_events_does_not_keep_the_server_from_answering(
    server: Server, ledger: Ledger, channel: str
) -> None:
    enough = threading.Event()
    flooded = 0

    def flood() -> None:
        nonlocal flooded
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.sndtimeo, socket.linger, socket.sndhwm = 100, 0, 64
            socket.connect(channel)
            while not enough.is_set():
                events: list[WireEvent] = [
                    sent(f"flood-{flooded}-{n}", clock="flood") for n in range(128)
                ]
                try:
                    socket.send(frames.encode(Frame("flood", flooded, 0, events)))
                    flooded += len(events)
                except zmq.Again:
                    pass  # full: it would drop

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        with observing(server) as seen:
            calls = [functools.partial(audio.speech, server.url, tokens=20, stream="audio")] * 8
            answers = audio.together(calls, at_once=4)
    finally:
        enough.set()
        flooding.join()
    assert all(answer.status == 200 and answer.samples for answer in answers), answers
    assert sum(outcomes(seen.gained).values()) == len(answers)
    assert flooded > 10_000

    later = Seen(server, ledger)
    audio.speech(server.url, tokens=12, stream="audio")
    gained, hops = later.all()
    assert edges(gained, "transfer_rx_decode_time_ms_count") == Counter(map(edge, hops))


def test_socket_file_that_is_removed_stops_nothing(
    server: Server, ledger: Ledger, channel: str
) -> None:
    Path(channel.removeprefix("ipc://")).unlink()
    seen = Seen(server, ledger)
    audio.speech(server.url, tokens=12, stream="audio")
    gained, hops = seen.all()
    assert hops
    assert edges(gained, "transfer_size_bytes_count") == Counter(map(edge, hops))


def test_nothing_is_left_behind(server: Server, channel: str) -> None:
    """Last in this file: it ends the server."""
    folder = Path(channel.removeprefix("ipc://")).parent
    assert folder.is_dir()
    server.stop()
    assert not folder.exists()
