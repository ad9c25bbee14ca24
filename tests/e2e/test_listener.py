"""What listeners hear, against a player that plays what a client got when it got it.

The client notes arrivals; the player lives through them millisecond by millisecond and shares no
code with the plugin. Vocoders pause where a test says so, so that streams really stall.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.clients import audio, sockets
from testbed.clients.audio import Answer
from testbed.clients.listener import Heard, heard, listen
from testbed.server import Server
from tests.e2e.conftest import (
    Pause,
    assert_times_agree,
    observing,
    outcomes,
    settled,
)
from tests.e2e.engine import engine_has
from tests.e2e.verdicts import assert_verdicts_agree, verdicts, violations
from tests.unit.tick_player import Over, hear
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

#: By the label of the family, milliseconds of buffer.
PLAYERS = {"0": 0, "0.2": 200}
#: Until the server notices that its client left.
LEAVING_SECONDS = 0.06

#: How sound is cut into windows of 10 ms.
WINDOW_SECONDS = 0.01

Pairs = list[tuple[float, float]]


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


def compared(gained: Scrape, heard: Heard) -> Pairs:
    """What the client's players heard of its one stream, beside what the server says."""
    over: Over = "leave" if heard.left else "end"
    first, before = heard.pieces[0][0], 0
    underrun = 0
    for arrival, length in heard.pieces:
        underrun = max(underrun, arrival - first - before)
        before += length
    assert gained.sum("vllm:omni_audio_underrun_seconds_count") == 1
    pairs = [(underrun / 1000, gained.sum("vllm:omni_audio_underrun_seconds_sum"))]
    for label, buffer in PLAYERS.items():
        player = hear(heard.pieces, buffer, heard.over_at, over)
        # Shorter ones are noise.
        silences = [length / 1000 for _, length, _ in player.stalls if length > 1]
        theirs = {
            "stalls_total": len(silences),
            "stall_seconds_total": sum(silences),
            "longest_stall_seconds_sum": max(silences, default=0.0),
            "played_seconds_total": player.played / 1000,
        }
        pairs += [
            (value, gained.sum(f"vllm:omni_audio_{name}", player=label))
            for name, value in theirs.items()
        ]
    return pairs


def ended(gained: Scrape, ending: str) -> tuple[float, float]:
    """One stream in all; and that it ended so, for a machine that was not busy for too long."""
    said = endings(gained)
    assert sum(said.values()) == 1
    return 1, said.get(ending, 0)


PAUSES = {"early": "0 0.9", "late": "0 0 0 0 0 2.5", "at intervals": "0 0.7 0 1.2 0 1.2"}


@pytest.mark.parametrize("when", PAUSES)
def test_stalls_are_those_that_a_player_has(speech_server: Server, pause: Pause, when: str) -> None:
    def measure() -> Pairs:
        with observing(speech_server) as seen:
            pause(PAUSES[when])
            heard = listen(speech_server.url, tokens=28)
        assert heard.samples == seen.gained.sum("vllm:omni_audio_frames_total")
        assert seen.gained.sum("vllm:omni_metrics_missing_samples_total") == 0
        assert_verdicts_agree(seen.gained, "sound")
        return [ended(seen.gained, "stalled"), *compared(seen.gained, heard)]

    assert_times_agree(measure, attempts=1)


ROUTES: dict[str, tuple[str, Callable[[Server], Answer]]] = {
    "server-sent events": (
        "speech_server",
        lambda server: audio.speech(server.url, tokens=28, stream="sse"),
    ),
    "websocket": ("speech_server", lambda server: sockets.speech(server.url, tokens=28)),
    "chat": ("chat_server", lambda server: audio.chat(server.url, stream=True)),
    "realtime": ("chat_server", lambda server: sockets.realtime(server.url, server.model)),
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_that_streams_is_heard_alike(
    request: pytest.FixtureRequest, pause: Pause, route: str
) -> None:
    name, ask = ROUTES[route]
    server: Server = request.getfixturevalue(name)

    def measure() -> Pairs:
        with observing(server) as seen:
            pause("0 1.5")
            answer = ask(server)
        assert answer.error is None
        assert answer.samples == seen.gained.sum("vllm:omni_audio_frames_total")
        assert seen.gained.sum("vllm:omni_metrics_missing_samples_total") == 0
        return [ended(seen.gained, "stalled"), *compared(seen.gained, heard(answer))]

    assert_times_agree(measure, attempts=1)


def test_listener_who_leaves_before_any_sound_heard_nothing(
    speech_server: Server, pause: Pause
) -> None:
    with observing(speech_server) as seen:
        pause("4")
        heard = listen(speech_server.url, tokens=28, waits_seconds=1.0)
    assert heard.left
    assert heard.pieces == []
    assert endings(seen.gained) == {"left_before_audio": 1}
    assert sum(verdicts(seen.gained, "streams").values()) == 1
    late = violations(seen.gained, "streams", "left_late")
    assert verdicts(seen.gained, "streams").get("bad", 0) == late
    assert seen.gained.sum("vllm:omni_audio_underrun_seconds_count") == 0
    assert seen.gained.sum("vllm:omni_audio_played_seconds_total") == 0


LEAVES = {
    "in a stall": ("0 4", 1.0, "left_stalled"),
    # Five steps bring more than a second of sound, then none comes for four.
    "in play": ("0 0 0 0 0 4", 0.3, "left_playing"),
}


@pytest.mark.parametrize("when", LEAVES)
def test_listener_who_leaves_heard_what_was_played_until_then(
    speech_server: Server, pause: Pause, when: str
) -> None:
    seconds, bears_seconds, ending = LEAVES[when]

    def measure() -> Pairs:
        with observing(speech_server) as seen:
            pause(seconds)
            heard = listen(speech_server.url, tokens=28, bears_seconds=bears_seconds)
        assert heard.left, heard
        assert_verdicts_agree(seen.gained, "sound")
        return [ended(seen.gained, ending), *compared(seen.gained, heard)]

    assert_times_agree(measure, LEAVING_SECONDS, attempts=1)


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

    def measure() -> Pairs:
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
        assert gained.sum("vllm:omni_audio_leading_silence_seconds_count") == 1
        silent = gained.sum("vllm:omni_audio_leading_silence_seconds_sum")
        assert silent == pytest.approx(heard.silence / 1000, abs=0.0015)
        assert silent == pytest.approx(seconds, abs=WINDOW_SECONDS)
        return [(audible / 1000, gained.sum("vllm:omni_audio_first_audible_seconds_sum"))]

    assert_times_agree(measure, attempts=1)


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


sentences = pytest.mark.skipif(
    not engine_has("requests of single sentences"), reason="an utterance is one request there"
)


@sentences
def test_utterance_of_several_requests_is_one_stream_with_the_gaps_between_them(
    speech_server: Server,
) -> None:
    def measure() -> Pairs:
        with observing(speech_server) as seen:
            # The second sentence is said when the first one has long been played.
            (answer,) = sockets.utterances(speech_server.url, (0.0, 2.0, 0.0), tokens=8)
        gained = seen.gained
        assert answer.error is None
        assert sum(outcomes(gained).values()) == 3
        assert set(outcomes(gained)) <= {"stop", "length"}
        assert endings(gained) == {"stalled": 1}
        assert answer.samples == gained.sum("vllm:omni_audio_frames_total")
        assert gained.sum("vllm:omni_audio_duration_seconds_count") == 3
        assert gained.sum("vllm:omni_audio_ttfp_seconds_count") == 3
        assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
        return compared(gained, heard(answer))

    assert_times_agree(measure, attempts=1)


@sentences
def test_each_input_of_a_websocket_is_an_utterance_and_leaving_between_sentences_ends_one(
    speech_server: Server,
) -> None:
    url = speech_server.url
    before = scrape(url).sum("vllm:omni_audio_streams_total")
    with observing(speech_server) as seen:
        answers = sockets.utterances(
            url, (0.0,), (0.0, 0.0), (0.0,), tokens=8, leaves_after_seconds=2.0
        )
        # No request is open when this client leaves, so that the server is idle says nothing.
        settled(speech_server, lambda s: s.sum("vllm:omni_audio_streams_total") >= before + 3)
    gained = seen.gained
    assert [answer.error for answer in answers] == [None] * 3
    assert sum(outcomes(gained).values()) == 4
    assert set(outcomes(gained)) <= {"stop", "length"}
    said = endings(gained)
    assert said.pop("left_stalled") == 1
    # Whether a busy machine kept up with the others is its own affair.
    assert sum(said.values()) == said.get("smooth", 0) + said.get("stalled", 0) == 2
    samples = sum(answer.samples for answer in answers)
    assert gained.sum("vllm:omni_audio_frames_total") == samples
    assert gained.sum("vllm:omni_audio_underrun_seconds_count") == 3
    for player in PLAYERS:
        played = gained.sum("vllm:omni_audio_played_seconds_total", player=player)
        assert played == pytest.approx(samples / 24_000)


def test_hundred_streams_at_once_end_once_each_and_their_sums_hold(speech_server: Server) -> None:
    url = speech_server.url
    stay = functools.partial(audio.speech, url, tokens=6, stream="audio")
    leave = functools.partial(audio.speech, url, tokens=60, stream="audio", hang_up_after_packets=1)
    with observing(speech_server) as seen:
        answers = audio.together([leave, stay, stay, stay] * 25, at_once=100)
    assert {answer.status for answer in answers} == {200}
    assert_sums_hold(seen.gained, 100)

    with observing(speech_server) as seen:
        answers = audio.together([stay] * 50, at_once=50)
    assert_sums_hold(seen.gained, 50)
    samples = sum(answer.samples for answer in answers)
    assert seen.gained.sum("vllm:omni_audio_frames_total") == samples
    for player in PLAYERS:
        played = seen.gained.sum("vllm:omni_audio_played_seconds_total", player=player)
        assert played == pytest.approx(samples / 24_000)
    # A player without a buffer is silent for the underrun, but for silences that nobody hears: less
    # than a millisecond before each of the packets, which hold 80 ms at least.
    noise = 0.001 * samples / 1_920
    underrun = seen.gained.sum("vllm:omni_audio_underrun_seconds_sum")
    silent = seen.gained.sum("vllm:omni_audio_stall_seconds_total", player="0")
    assert underrun - noise < silent < underrun + 1e-6


def assert_sums_hold(gained: Scrape, streams: int) -> None:
    """What is so whatever the machine did meanwhile."""

    def count(*of: str) -> float:
        return sum(endings(gained).get(ending, 0) for ending in of)

    print(endings(gained), ended := outcomes(gained))
    assert sum(ended.values()) == streams
    assert count("smooth", "stalled") == ended.get("stop", 0) + ended.get("length", 0)
    left = count("left_before_audio", "left_playing", "left_stalled")
    assert left == ended.get("abort", 0)
    assert left + count("smooth", "stalled") == streams
    heard = streams - count("left_before_audio")
    assert gained.sum("vllm:omni_audio_underrun_seconds_count") == heard
    stalled = count("stalled", "left_stalled")
    assert gained.sum("vllm:omni_audio_stalls_total", player="0") >= stalled
    longest = "vllm:omni_audio_longest_stall_seconds"
    for player in PLAYERS:
        assert gained.sum(f"{longest}_count", player=player) == heard
        silent = gained.sum("vllm:omni_audio_stall_seconds_total", player=player)
        assert gained.sum(f"{longest}_sum", player=player) < silent + 1e-6
