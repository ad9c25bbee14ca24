"""What a listener hears, against a player that lives through the same stream tick by tick."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tick_player import TICK, Over, hear
from vllm_omni_metrics_plugin.media.playback import ENDINGS, Playback, Player

Packets = list[tuple[int, int]]
OVERS: tuple[Over, ...] = ("end", "leave", "fail")


def _over(playback: Playback, over: Over, at: float) -> str:
    return {"end": playback.end, "leave": playback.leave, "fail": playback.fail}[over](at)


def _agree(packets: Packets, buffer: int, over_at: int, over: Over) -> None:
    playback = Playback((buffer * TICK,))
    for arrival, length in packets:
        playback.packet(arrival * TICK, length * TICK)
    ending = _over(playback, over, over_at * TICK)
    (player,) = playback.players
    heard = hear(packets, buffer, over_at, over)
    lengths = [length for _, length, _ in heard.stalls]
    expected = (
        None if heard.started is None else heard.started * TICK,
        len(lengths),
        sum(lengths) * TICK,
        max(lengths, default=0) * TICK,
        heard.stalls[0][2] * TICK if lengths else None,
        heard.played * TICK,
    )
    found = (
        player.started_at,
        player.stalls,
        player.stall_seconds,
        player.longest_stall_seconds,
        player.first_stall_at_seconds,
        player.played_seconds,
    )
    about = f"packets={packets} buffer={buffer} {over} at {over_at}"
    assert found == expected, about
    for place in (0, heard.played // 2, heard.played - 1):
        if heard.started is not None and 0 <= place < heard.played and place * TICK <= 3:
            silent = sum(length for _, length, before in heard.stalls if before <= place)
            at = (heard.started + place + silent) * TICK
            assert player.played_at(place * TICK) == at, f"{place} of {about}"
    if over == "fail" or (over == "end" and not packets):
        assert ending == "error", about
    elif over == "end":
        assert ending == ("stalled" if lengths else "smooth"), about
    elif heard.started is None:
        assert ending == "left_before_audio", about
    else:
        assert ending == ("left_stalled" if heard.silent_when_over else "left_playing"), about
    if buffer == 0 and over == "end":
        assert player.stall_seconds == playback.underrun_seconds, about


def test_ten_thousand_random_streams_are_heard_as_a_tick_player_hears_them() -> None:
    chance = random.Random(20_26)
    for _ in range(10_000):
        at = chance.randint(0, 20)
        packets: Packets = []
        for _ in range(chance.randint(0, 12)):
            packets.append((at, chance.randint(1, 30)))
            at += chance.randint(0, 45)
        over_at = (packets[-1][0] if packets else at) + chance.randint(0, 60)
        _agree(packets, chance.choice((0, 0, 5, 13, 20, 60)), over_at, chance.choice(OVERS))


@given(
    gaps=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), max_size=10),
    buffer=st.integers(0, 70),
    later=st.integers(0, 70),
    over=st.sampled_from(OVERS),
)
def test_the_streams_that_are_hardest_to_hear_right(
    gaps: Packets, buffer: int, later: int, over: Over
) -> None:
    packets: Packets = []
    at = 0
    for gap, length in gaps:
        at += gap
        packets.append((at, length))
    _agree(packets, buffer, at + later, over)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("packet", "end", "leave", "fail")), st.floats(0, 2), st.floats(0, 1)
        ),
        max_size=12,
    )
)
def test_a_stream_has_one_ending_whatever_comes_in_which_order(
    steps: list[tuple[str, float, float]],
) -> None:
    playback = Playback((0.0, 0.2))
    at = 0.0
    endings = []
    for step, later, seconds in steps:
        at += later
        if step == "packet":
            playback.packet(at, seconds)
        else:
            endings.append(getattr(playback, step)(at))
    endings.append(playback.fail(at))
    assert set(endings) == {playback.ending}, endings
    assert playback.ending in ENDINGS


def test_a_start_delayed_by_the_underrun_is_gapless_and_a_shorter_delay_is_not() -> None:
    playback = Playback((0.0,))
    for at, seconds in ((10.0, 0.5), (10.75, 0.25), (11.5, 1.0)):
        playback.packet(at, seconds)
    assert playback.underrun_seconds == 0.75
    assert playback.end(11.5) == "stalled"
    assert playback.players[0].stalls == 2
    assert playback.players[0].first_stall_at_seconds == 0.5


@pytest.mark.parametrize(("late", "stalls"), [(0.0009, 0), (0.0011, 1)])
def test_a_silence_under_a_millisecond_is_noise(late: float, stalls: int) -> None:
    playback = Playback((0.0,))
    playback.packet(0.0, 1.0)
    playback.packet(1.0 + late, 1.0)
    assert playback.end(1.5) == ("stalled" if stalls else "smooth")
    assert playback.players[0].stalls == stalls
    assert (playback.players[0].stall_seconds > 0) is bool(stalls)
    assert playback.underrun_seconds == pytest.approx(late)


@pytest.mark.parametrize(("late", "ending"), [(0.0009, "left_playing"), (0.0011, "left_stalled")])
def test_who_leaves_within_a_millisecond_of_the_last_sound_leaves_playing(
    late: float, ending: str
) -> None:
    playback = Playback((0.0,))
    playback.packet(0.0, 1.0)
    assert playback.leave(1.0 + late) == ending


def test_a_buffer_hides_what_a_player_without_one_stalls_at() -> None:
    playback = Playback((0.0, 0.2))
    for at, seconds in ((0.0, 0.1), (0.05, 0.1), (0.3, 0.5)):
        playback.packet(at, seconds)
    at_once, buffered = playback.players
    assert (at_once.stalls, buffered.stalls) == (1, 1)
    assert at_once.stall_seconds == pytest.approx(0.1)
    assert buffered.stall_seconds == pytest.approx(0.05)
    assert buffered.started_at == 0.05


def test_it_runs_dry_when_all_that_arrived_is_played() -> None:
    player = Player(0.2)
    assert player.dry(0.0) is None
    player.packet(5.0, 0.0, 0.25)
    assert player.dry(0.25) == (5.25, 0.25)
    player.packet(6.0, 0.25, 0.3)
    assert player.dry(0.3) == (5.25, 0.25), "it waits for its buffer since then"


def test_a_packet_costs_little() -> None:
    """A bound for gross mistakes only; the machine is shared."""
    best = float("inf")
    for _ in range(5):
        playback = Playback((0.0, 0.2))
        begun = time.perf_counter()
        for number in range(20_000):
            playback.packet(number * 0.05, 0.04)
        best = min(best, (time.perf_counter() - begun) / 20_000)
    print(f"{best * 1e6:.2f} us per packet with two players, each of which stalls")
    assert best < 20e-6
