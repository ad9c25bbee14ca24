"""When the first sound is to be heard."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_omni_metrics_plugin.media.onset import Onset
from vllm_omni_metrics_plugin.media.sound import NoCopyError, copy_sound, full_scale

np = pytest.importorskip("numpy")

#: The window that first has enough of a sound in it begins up to 10 ms before the sound.
EARLY = 0.010


def _tone(seconds: float, rate: int, level: float = 0.3) -> Any:
    return level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)


def _speech(silence: float, rate: int = 24_000, level: float = 0.3, length: float = 1.0) -> Any:
    return np.concatenate((np.zeros(round(silence * rate)), _tone(length, rate, level)))


def _copied(*audio: Any, samples: int, most: int = 72_000) -> Any:
    return full_scale(copy_sound([{"audio": one, "sr": 24_000} for one in audio], samples, most))


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
    just_loud = _tone(0.5, 24_000, 0.016)
    assert _onset(np.stack((np.zeros_like(just_loud), just_loud))) is not None


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
    sound = _speech(0.3)
    assert _onset(_copied(form(sound), samples=len(sound))) == pytest.approx(0.3, abs=EARLY)


def test_no_more_is_copied_than_asked_for() -> None:
    assert _copied(np.zeros(100_000), samples=100_000).shape == (1, 72_000)
    assert _copied(np.zeros((100_000, 2)), samples=100_000).shape == (2, 72_000)


def test_sound_is_a_copy_whatever_the_engine_does_with_its_own() -> None:
    torch = pytest.importorskip("torch")
    for owned in (torch.ones(480), np.ones(480, dtype=np.float32)):
        sound = copy_sound([{"audio": owned}], 480, 72_000)
        owned[:] = 0
        assert sound.all()


@pytest.mark.parametrize("repeated", [0, 100, 5_000])
def test_what_an_output_repeats_is_left_out(repeated: int) -> None:
    sound = np.arange(10_000, dtype=np.float32)
    expected = sound[None, repeated:]
    new = len(sound) - repeated
    whole, chunks = _copied(sound, samples=new), _copied(np.split(sound, 8), samples=new)
    assert np.array_equal(whole, expected)
    assert np.array_equal(chunks, expected)
    assert np.array_equal(_copied(*np.split(sound, 8), samples=new), expected)


def test_list_of_values_is_sound_too() -> None:
    assert _copied([0.5, -0.5], samples=2).tolist() == [[0.5, -0.5]]
    assert _copied([[0.5], None, [-0.5]], samples=2).tolist() == [[0.5, -0.5]]


class OnDevice:
    """Says where it is, and nothing else."""

    is_cpu = False

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


STEREO = np.zeros((2, 100))


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (OnDevice(), "on_device"),
        ([np.zeros(50), OnDevice()], "on_device"),
        (np.zeros(100, dtype=bool), "unknown_form"),
        (np.zeros(100, dtype=np.uint8), "unknown_form"),
        (np.zeros((2, 1, 50)), "unknown_form"),
        (np.zeros(99), "unknown_form"),
        ([np.zeros(50), STEREO[:, :50]], "unknown_form"),
        ("text", "unknown_form"),
        (None, "unknown_form"),
    ],
    ids=["device", "devices", "bool", "unsigned", "batch", "short", "mixed", "text", "none"],
)
def test_what_is_no_sound_in_the_hosts_memory_is_not_touched(audio: Any, reason: str) -> None:
    with pytest.raises(NoCopyError) as refused:
        copy_sound([{"audio": audio}], 100, 72_000)
    assert refused.value.reason == reason


def test_a_tensor_sounds_as_an_array_does() -> None:
    torch = pytest.importorskip("torch")
    for kind in (torch.float32, torch.bfloat16):
        sound = torch.from_numpy(_speech(0.3)).to(kind).requires_grad_()
        assert _onset(_copied(sound, samples=len(sound))) == pytest.approx(0.3, abs=EARLY), kind


def test_a_rate_that_has_no_milliseconds_is_refused() -> None:
    with pytest.raises(ValueError, match="999 Hz"):
        Onset(999)


def test_full_scale_of_integers_is_that_of_their_type() -> None:
    quiet = (_tone(1.0, 24_000, 0.005) * 32_768).astype(np.int16)
    assert _onset(_copied(quiet, samples=len(quiet))) is None
    just_loud = (_tone(1.0, 24_000, 0.016) * 32_768).astype(np.int16)
    assert _onset(_copied(just_loud, samples=len(just_loud))) is not None
