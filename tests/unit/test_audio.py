"""Counting samples and finding the sample rate, in every form that models deliver audio in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin.media.audio import count_samples, find_sample_rate

RATE_KEYS = ("audio_sample_rate", "output_sample_rate", "sample_rate", "sampling_rate", "sr")


ENGINES_OWN = "tensors are torch's, which comes with the engine"


@pytest.fixture(params=["numpy", "torch"])
def zeros(request: pytest.FixtureRequest) -> Any:
    """Makes an array of zeros of a shape, in each library that has arrays."""
    library = pytest.importorskip(request.param, reason=ENGINES_OWN)
    return library.zeros


@pytest.mark.parametrize(
    ("shape", "samples"),
    [
        ((480,), 480),
        ((1,), 1),
        ((1, 480), 480),
        ((2, 480), 480),
        ((1, 1, 480), 480),
        ((1, 2, 480), 480),
        ((3, 2, 480), 1440),
        ((480, 1), 480),
        ((480, 2), 480),
        ((480, 3), 3),
        ((2, 2), 2),
        ((1, 480, 2), 480),
        ((), 1),
        ((0,), 0),
        ((0, 480), 0),
        ((2, 0), 0),
        ((0, 2, 480), 0),
        ((1, 0, 480), 0),
        ((1, 2, 0), 0),
    ],
)
def test_samples_of_one_array_are_counted_per_channel(
    zeros: Any, shape: tuple[int, ...], samples: int
) -> None:
    assert count_samples({"audio": zeros(shape)}) == samples


@pytest.mark.parametrize("container", [list, tuple])
@pytest.mark.parametrize(
    ("shapes", "samples"),
    [
        ([], 0),
        ([(480,)], 480),
        ([(480,), (100,), (20,)], 600),
        ([(2, 480), (2, 20)], 500),
        ([(1, 2, 480), (1, 2, 20)], 500),
        ([(0,), (480,)], 480),
        ([(0,), (0,)], 0),
    ],
)
def test_samples_of_a_list_of_chunks_add_up(
    zeros: Any, container: type, shapes: list[tuple[int, ...]], samples: int
) -> None:
    assert count_samples({"audio": container(zeros(shape) for shape in shapes)}) == samples


@pytest.mark.parametrize(
    ("audio", "samples"),
    [
        ([0.0, 0.5, -0.5], 3),
        ((0, 1), 2),
        ([[0.0, 0.5], [0.25]], 3),
        ([np.float32(0.5), np.float32(0.0)], 2),
        ([np.float64(0.5), np.float64(0.0)], 2),
        ([None, [0.0, 0.5], None], 2),
        ([None], 0),
        ("no samples", 0),
        (b"\x00\x00", 0),
        (object(), 0),
    ],
)
def test_samples_of_plain_values(audio: object, samples: int) -> None:
    assert count_samples({"audio": audio}) == samples


def test_audio_goes_by_the_name_the_models_give_it_too() -> None:
    assert count_samples({"model_outputs": np.zeros(480)}) == 480
    assert count_samples({"audio": np.zeros(480), "model_outputs": np.zeros(20)}) == 480
    assert count_samples({"audio": None, "model_outputs": np.zeros(20)}) == 20


@pytest.mark.parametrize("payload", [{}, {"audio": None}, {"sr": 24000}, {"image": np.zeros(4)}])
def test_payload_without_audio_is_told_from_empty_audio(payload: dict[str, Any]) -> None:
    assert count_samples(payload) is None
    assert count_samples({**payload, "audio": np.zeros(0)}) == 0


@given(channels=st.integers(1, 2), samples=st.integers(0, 200), cuts=st.lists(st.integers(0, 200)))
def test_every_split_of_an_array_holds_as_many_samples(
    channels: int, samples: int, cuts: list[int]
) -> None:
    whole = np.zeros((channels, samples))
    chunks = np.split(whole, sorted(min(cut, samples) for cut in cuts), axis=-1)
    assert count_samples({"audio": whole}) == samples
    assert count_samples({"audio": chunks}) == samples
    assert sum(count_samples({"audio": chunk}) or 0 for chunk in chunks) == samples
    assert count_samples({"audio": [chunk[None] for chunk in chunks]}) == samples


@pytest.mark.parametrize("key", RATE_KEYS)
def test_sample_rate_is_found_under_each_name(key: str) -> None:
    assert find_sample_rate({"audio": np.zeros(4), key: 24000}) == 24000


@pytest.mark.parametrize(
    "rate",
    [
        24000,
        24000.0,
        [24000],
        (16000, 24000),
        [[24000]],
        np.int64(24000),
        np.float32(24000),
        np.array(24000),
        np.array([24000]),
        np.array([[24000.0]]),
        [np.array(24000)],
    ],
    ids=repr,
)
def test_sample_rate_is_read_in_each_form(rate: object) -> None:
    found = find_sample_rate({"sr": rate})
    assert found == 24000
    assert type(found) is int


def test_sample_rate_is_read_from_tensors() -> None:
    torch = pytest.importorskip("torch", reason=ENGINES_OWN)
    for rate in (torch.tensor(24000), torch.tensor([24000.0]), [torch.tensor(24000)]):
        assert find_sample_rate({"sr": rate}) == 24000, rate


def test_sample_rate_on_another_device_is_not_waited_for() -> None:
    torch = pytest.importorskip("torch", reason=ENGINES_OWN)
    elsewhere = torch.empty((), device="meta")  # reading it would raise
    assert find_sample_rate({"sr": elsewhere}) is None
    assert find_sample_rate({"sr": elsewhere, "sample_rate": 24000}) == 24000


@pytest.mark.parametrize(
    "rate",
    [
        *(0, 0.0, 0.5, -24000, math.nan, math.inf, -math.inf),
        *(None, True, False, "24000", b"24000", [], (), {}, {"sr": 24000}, object()),
        *(np.array([]), np.array(0), np.array(math.nan), np.array(True), np.array("24000")),
        *([None], [0], ["24000"]),
    ],
    ids=repr,
)
def test_what_is_no_sample_rate_is_passed_over(rate: object) -> None:
    assert find_sample_rate({"sr": rate}) is None
    assert find_sample_rate({"audio_sample_rate": rate, "sr": 16000}) == 16000


def test_output_that_states_no_sample_rate_has_none() -> None:
    assert find_sample_rate({"audio": np.zeros(4)}) is None
