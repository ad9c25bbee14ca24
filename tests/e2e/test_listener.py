"""What listeners hear, against a player that plays what a client got when it got it.

The client notes arrivals; the player lives through them millisecond by millisecond and shares no
code with the plugin. Vocoders pause where a test says so, so that streams really stall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.clients import audio
from testbed.clients.listener import Heard, listen
from testbed.server import Server
from tests.e2e.conftest import Observation, observing
from tests.unit.tick_player import Over, hear
from vllm_omni_metrics_plugin.scrape import Scrape

#: By the label of the family, milliseconds of buffer.
PLAYERS = {"0": 0, "0.2": 200}
#: The client and the server share two cores with whatever else runs.
APART_SECONDS = 0.06

#: How sound is cut into windows of 10 ms.
WINDOW_SECONDS = 0.01

Pause = Callable[[str], None]


@pytest.fixture
def pause(pauses: Path) -> Iterator[Pause]:
    """Has the vocoders pause so many seconds before each of their next steps."""

    def write(seconds: str) -> None:
        pauses.write_text(seconds)

    yield write
    pauses.unlink(missing_ok=True)


@pytest.fixture
def begin_silent(silence: Path) -> Iterator[Callable[[float], None]]:
    """Has streams begin with so many seconds of silence."""

    def write(seconds: float) -> None:
        silence.write_text(str(seconds))

    yield write
    silence.unlink(missing_ok=True)


@pytest.fixture(scope="module", autouse=True)
def warm(speech_server: Server) -> None:
    for _ in range(2):
        audio.speech(speech_server.url)


def endings(gained: Scrape) -> dict[str, float]:
    return gained.by("vllm:omni_audio_streams_total", "ending")


def assert_heard_alike(gained: Scrape, heard: Heard) -> None:
    """Seconds agree within what a busy machine makes a client late."""
    over: Over = "leave" if heard.left else "end"
    played = {
        label: hear(heard.pieces, buffer, heard.over_at, over) for label, buffer in PLAYERS.items()
    }
    first, before = heard.pieces[0][0], 0
    underrun = 0
    for arrival, length in heard.pieces:
        underrun = max(underrun, arrival - first - before)
        before += length

    def near(value: float) -> object:
        return pytest.approx(value, abs=APART_SECONDS, rel=0.1)

    assert gained.sum("vllm:omni_audio_underrun_seconds_count") == 1
    assert gained.sum("vllm:omni_audio_underrun_seconds_sum") == near(underrun / 1000), heard
    for label, player in played.items():
        silent = sum(length for _, length, _ in player.stalls) / 1000
        longest = max((length for _, length, _ in player.stalls), default=0) / 1000
        shown = {
            "stalled": gained.sum("vllm:omni_audio_stall_seconds_total", player=label),
            "longest": gained.sum("vllm:omni_audio_longest_stall_seconds_sum", player=label),
            "played": gained.sum("vllm:omni_audio_played_seconds_total", player=label),
        }
        theirs = {"stalled": silent, "longest": longest, "played": player.played / 1000}
        assert shown == {name: near(value) for name, value in theirs.items()}, (label, heard)


PAUSES = {
    "early": ("0 0.9", "stalled"),
    "late": ("0 0 0 0 0 2.5", "stalled"),
    "at intervals": ("0 0.7 0 1.2 0 1.2", "stalled"),
}


@pytest.mark.parametrize("when", PAUSES)
def test_stalls_are_those_that_a_player_has(speech_server: Server, pause: Pause, when: str) -> None:
    seconds, ending = PAUSES[when]
    with observing(speech_server) as seen:
        pause(seconds)
        heard = listen(speech_server.url, tokens=28)
    assert endings(seen.gained) == {ending: 1}
    assert heard.samples == seen.gained.sum("vllm:omni_audio_frames_total")
    assert_heard_alike(seen.gained, heard)
    assert seen.gained.sum("vllm:omni_metrics_missing_samples_total") == 0


def left(
    server: Server, pause: Pause, seconds: str, **patience: float
) -> tuple[Observation, Heard]:
    """A client that leaves when its patience ends."""
    with observing(server) as seen:
        pause(seconds)
        heard = listen(server.url, tokens=28, **patience)
    assert heard.left, heard
    return seen, heard


def test_listener_who_leaves_in_a_stall_is_counted_with_it(
    speech_server: Server, pause: Pause
) -> None:
    seen, heard = left(speech_server, pause, "0 4", bears_seconds=1.0)
    assert endings(seen.gained) == {"left_stalled": 1}
    assert_heard_alike(seen.gained, heard)


def test_listener_who_leaves_before_any_sound_heard_nothing(
    speech_server: Server, pause: Pause
) -> None:
    seen, heard = left(speech_server, pause, "4", waits_seconds=1.0)
    assert heard.pieces == []
    assert endings(seen.gained) == {"left_before_audio": 1}
    assert seen.gained.sum("vllm:omni_audio_underrun_seconds_count") == 0
    assert seen.gained.sum("vllm:omni_audio_played_seconds_total") == 0


def test_listener_who_leaves_while_it_plays_heard_what_was_played(
    speech_server: Server, pause: Pause
) -> None:
    # Five steps bring more than a second of sound, then none comes for four.
    seen, heard = left(speech_server, pause, "0 0 0 0 0 4", bears_seconds=0.3)
    received = sum(length for _, length in heard.pieces)
    if heard.over_at - heard.pieces[0][0] > received - 100:
        pytest.skip("this machine was too busy to be ahead of a player")
    assert endings(seen.gained) == {"left_playing": 1}
    assert_heard_alike(seen.gained, heard)


def test_streams_that_fail_and_whole_answers_are_told_apart(
    speech_server: Server,
) -> None:
    with observing(speech_server) as seen:
        whole = audio.speech(speech_server.url, tokens=10)
        silent = audio.speech(speech_server.url, tokens=1, stream="audio")
        time.sleep(0.1)
    assert (whole.status, silent.status) == (200, 200)
    assert endings(seen.gained) == {"error": 1}, "one has no sound, the other is no stream"


def missing(gained: Scrape) -> dict[tuple[str, str], float]:
    """By family and reason."""
    name = "vllm:omni_metrics_missing_samples_total"
    found = {
        (labels["family"], labels["reason"]): gained.sum(name, **labels)
        for labels in gained.label_sets(name)
    }
    return {key: count for key, count in found.items() if count}


@pytest.mark.parametrize(
    ("seconds", "paused"), [(0.0, "0"), (0.3, "0 0.9"), (0.3, "0 0 0 0 0 2.5")]
)
def test_first_sound_is_heard_when_a_player_of_what_came_plays_it(
    speech_server: Server,
    pause: Pause,
    begin_silent: Callable[[float], None],
    seconds: float,
    paused: str,
) -> None:
    """A stall within the silence delays it, one after it does not."""
    with observing(speech_server) as seen:
        begin_silent(seconds)
        pause(paused)
        heard = listen(speech_server.url, tokens=28)
    assert heard.silence is not None
    player = hear(heard.pieces, 0, heard.over_at, "end")
    stalled = sum(length for _, length, before in player.stalls if before <= heard.silence)
    audible = heard.pieces[0][0] + heard.silence + stalled
    gained = seen.gained
    assert missing(gained) == {}
    assert gained.sum("vllm:omni_audio_first_audible_seconds_count") == 1
    assert gained.sum("vllm:omni_audio_first_audible_seconds_sum") == pytest.approx(
        audible / 1000, abs=APART_SECONDS, rel=0.1
    )
    assert gained.sum("vllm:omni_audio_leading_silence_seconds_count") == 1
    silent = gained.sum("vllm:omni_audio_leading_silence_seconds_sum")
    assert silent == pytest.approx(heard.silence / 1000, abs=0.0015)
    assert silent == pytest.approx(seconds, abs=WINDOW_SECONDS)


def test_stream_of_silence_has_no_first_sound(
    speech_server: Server, begin_silent: Callable[[float], None]
) -> None:
    with observing(speech_server) as seen:
        begin_silent(100)
        heard = listen(speech_server.url, tokens=10)
    assert heard.silence is None
    assert endings(seen.gained)
    families = ("vllm:omni_audio_first_audible_seconds", "vllm:omni_audio_leading_silence_seconds")
    assert missing(seen.gained) == {(family, "no_audible_sound"): 1 for family in families}
    assert all(seen.gained.sum(f"{family}_count") == 0 for family in families)
