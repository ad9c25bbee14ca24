"""When the first sound is to be heard."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vllm_omni_metrics_plugin.media.onset import Onset, sound_on_cpu

np = pytest.importorskip("numpy")

#: The window that first has enough of a sound in it begins up to 10 ms before the sound.
EARLY = 0.010


def _tone(seconds: float, rate: int, level: float = 0.3) -> Any:
    return level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)


def _speech(silence: float, rate: int = 24_000, level: float = 0.3, length: float = 1.0) -> Any:
    return np.concatenate((np.zeros(round(silence * rate)), _tone(length, rate, level)))


def _onset(sound: Any, rate: int = 24_000, packet: int | None = None) -> float | None:
    onset = Onset(rate)
    sound = np.atleast_2d(sound)
    size = packet or sound.shape[1]
    for start in range(0, sound.shape[1], size):
        onset.add(sound[:, start : start + size])
    return onset.seconds


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("silence", [0.0, 0.3, 2.9])
@pytest.mark.parametrize("packet", [None, 7, 1_920])
def test_it_is_where_silence_ends(rate: int, silence: float, packet: int | None) -> None:
    onset = _onset(_speech(silence, rate), rate, packet)
    assert onset is not None
    assert max(0.0, silence - EARLY) <= onset <= silence + 0.001


def test_there_is_none_after_three_seconds_and_nothing_is_kept() -> None:
    onset = Onset(24_000)
    onset.add(np.atleast_2d(_speech(4.0)))
    assert (onset.seconds, onset.is_decided) == (None, True)
    onset.add(np.atleast_2d(_tone(1.0, 24_000)))
    assert onset.seconds is None


def test_a_click_is_no_sound() -> None:
    click = np.concatenate((np.zeros(2_400), _tone(0.030, 24_000), np.zeros(7_200)))
    assert _onset(click) is None
    onset = _onset(np.concatenate((click, _tone(0.2, 24_000))))
    assert onset == pytest.approx(len(click) / 24_000, abs=EARLY)


def test_a_deep_voice_is_one_sound_though_its_pulses_are_10_ms_apart() -> None:
    pulse = np.concatenate((_tone(0.002, 24_000, 0.9), np.zeros(192)))
    assert pulse.shape == (240,)
    assert _onset(np.concatenate((np.zeros(7_200), np.tile(pulse, 20)))) == pytest.approx(
        0.3, abs=EARLY
    )


@pytest.mark.parametrize(("level", "is_heard"), [(0.0145, True), (0.0138, False)])
def test_the_floor_is_40_db_under_full_scale(level: float, is_heard: bool) -> None:
    """A sine's RMS is its level over the root of 2; a 10 ms window has 2.2 periods of it."""
    rate = 24_000
    sine = level * np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate)
    assert (_onset(sine) is not None) is is_heard


def test_noise_under_the_floor_and_a_constant_offset_are_silence() -> None:
    noise = np.random.default_rng(1).normal(0, 0.003, 24_000)
    assert _onset(noise + 0.5) is None
    onset = _onset(np.concatenate((noise, _tone(0.5, 24_000))) - 0.25, packet=1_000)
    assert onset == pytest.approx(1.0, abs=EARLY)


def test_one_channel_with_sound_is_enough() -> None:
    right = _speech(0.3)
    assert _onset(np.stack((np.zeros_like(right), right))) == pytest.approx(0.3, abs=EARLY)
    assert _onset(np.stack((right, -right))) == pytest.approx(0.3, abs=EARLY)


@pytest.mark.parametrize(
    "form",
    [
        lambda sound: sound,
        lambda sound: sound.astype(np.float16),
        lambda sound: (sound * 32_767).astype(np.int16),
        lambda sound: sound[None, :],
        lambda sound: sound[None, None, :],
        lambda sound: np.stack((sound, sound)),
        lambda sound: np.stack((sound, sound), axis=1),
    ],
    ids=["floats", "halves", "int16", "1xN", "1x1xN", "2xN", "Nx2"],
)
def test_every_form_of_audio_sounds_the_same(form: Any) -> None:
    sound = sound_on_cpu(form(_speech(0.3)), 72_000)
    assert _onset(sound) == pytest.approx(0.3, abs=EARLY)


def test_no_more_is_taken_than_asked_for() -> None:
    assert sound_on_cpu(np.zeros(100_000), 72_000).shape == (1, 72_000)
    assert sound_on_cpu(np.zeros((100_000, 2)), 72_000).shape == (2, 72_000)


def test_what_is_not_on_the_cpu_is_not_touched() -> None:
    class OnDevice:
        is_cpu = False

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

    assert sound_on_cpu(OnDevice(), 72_000) is None
    assert sound_on_cpu([0.1, 0.2], 72_000) is None
    assert sound_on_cpu(np.array([True, False]), 72_000) is None


def test_a_tensor_sounds_as_an_array_does() -> None:
    torch = pytest.importorskip("torch")
    for kind in (torch.float32, torch.bfloat16):
        tensor = torch.from_numpy(_speech(0.3)).to(kind).requires_grad_()
        assert _onset(sound_on_cpu(tensor, 72_000)) == pytest.approx(0.3, abs=EARLY), kind


def test_a_rate_that_has_no_milliseconds_is_refused() -> None:
    with pytest.raises(ValueError, match="999 Hz"):
        Onset(999)


def test_what_a_packet_costs_is_seen() -> None:
    onset = Onset(24_000)
    packets = [np.zeros((1, 1_920), dtype=np.float32) for _ in range(30)]
    begun = time.perf_counter()
    for packet in packets:
        onset.add(packet)
    print(f"{(time.perf_counter() - begun) / len(packets) * 1e6:.0f} us per packet of 80 ms")
    assert onset.seconds is None


def test_full_scale_of_integers_is_that_of_their_type() -> None:
    quiet = (_tone(1.0, 24_000, 0.005) * 32_768).astype(np.int16)
    assert _onset(sound_on_cpu(quiet, 72_000)) is None
