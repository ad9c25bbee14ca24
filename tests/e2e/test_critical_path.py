"""Where the time went: a delay is put into one place, and found there and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.clients import audio
from testbed.server import Server
from tests.e2e.conftest import observing, path

REQUESTS = 4
DELAY_SECONDS = 0.4
#: By the place of the delay, the segment and stage that it belongs to.
PLACES = {
    "frontend": ("frontend", "0"),
    "transfer": ("transfer", "1"),
    "vocoder": ("execute", "1"),
}


@pytest.fixture
def delay(pauses: Path) -> Iterator[None]:
    yield
    for name in ("delays", "vocoder"):
        (pauses.parent / name).unlink(missing_ok=True)


def first_packets(
    server: Server, pauses: Path, place: str | None
) -> tuple[dict[tuple[str, str], float], float]:
    """Seconds by segment and stage, and in all as the client timed it."""
    if place not in (None, "vocoder"):
        (pauses.parent / "delays").write_text(f"{place} {DELAY_SECONDS}\n")
    timed = 0.0
    with observing(server) as seen:
        for _ in range(REQUESTS):
            if place == "vocoder":
                pauses.write_text(str(DELAY_SECONDS))  # once more for each of the replicas
            answer = audio.speech(server.url, tokens=12, stream="audio")
            assert answer.first_audio_seconds is not None
            timed += answer.first_audio_seconds
    (pauses.parent / "delays").unlink(missing_ok=True)
    return path(seen.gained, "first_packet"), timed


@pytest.mark.usefixtures("delay")
def test_delay_of_one_place_is_found_in_its_segment(speech_server: Server, pauses: Path) -> None:
    for _ in range(2):  # the first request of each replica pays for things that no later one does
        audio.speech(speech_server.url)
    usual, timed_usually = first_packets(speech_server, pauses, None)
    for place, segment in PLACES.items():
        slow, timed = first_packets(speech_server, pauses, place)
        gained = slow[segment] - usual[segment]
        print(
            f"{place}: the client waited {timed - timed_usually:.3f} s longer, of which "
            f"{gained:.3f} s in {segment}; unknown {slow.get(('unknown', '1'), 0.0):.3f} s"
        )
        # A busy machine is slow anywhere, so what is compared with the usual is only printed.
        assert slow[segment] > REQUESTS * DELAY_SECONDS, slow
        assert max(slow, key=slow.__getitem__) == segment, slow
