"""Counting images, pixels and frames by their form alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vllm_omni_metrics_plugin.media.visual import (
    UnknownFormError,
    find_frame_rate,
    find_rate_multiplier,
    measure_images,
    measure_videos,
    states_video,
)


class Picture:
    """Like a PIL image: it knows its width and height."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)


class Tensor:
    """Like a tensor: its shape is all that may be asked for."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape


def no_file(video: bytes) -> int | None:
    raise AssertionError("nothing is encoded here")


sides = st.integers(8, 4096)
counts = st.integers(1, 64)


@given(st.lists(st.tuples(sides, sides), max_size=6), st.integers(0, 6))
def test_pictures_in_lists_and_lists_of_lists(sizes: list[tuple[int, int]], split: int) -> None:
    pictures = [Picture(*size) for size in sizes]
    pixels = [width * height for width, height in sizes]
    assert measure_images(pictures) == pixels
    assert measure_images([pictures[:split], pictures[split:]]) == pixels


@given(counts, sides, sides, st.sampled_from([1, 3, 4]))
def test_stacks_of_images_with_channels_before_or_behind(
    n: int, height: int, width: int, channels: int
) -> None:
    for shape in ((n, height, width, channels), (n, channels, height, width)):
        # A number of images may look like another number of channels: colour is believed first.
        assume(channels == 3 or n not in (1, 3, 4))
        assert measure_images(Tensor(*shape)) == [height * width] * n


@given(sides, sides, st.sampled_from([1, 3, 4]))
def test_one_image_as_an_array(height: int, width: int, channels: int) -> None:
    for shape in ((height, width, channels), (channels, height, width), (height, width)):
        assert measure_images(np.empty(shape, np.uint8)) == [height * width]
        assert measure_images([Tensor(*shape)]) == [height * width]


@given(st.integers(1, 3), counts, sides, sides)
def test_videos_with_channels_in_any_place(
    batch: int, frames: int, height: int, width: int
) -> None:
    for shape in (
        (batch, frames, height, width, 3),
        (batch, frames, 3, height, width),
        (batch, 3, frames, height, width),
    ):
        assert measure_videos(Tensor(*shape), no_file) == (batch, batch * frames), shape
        assert measure_videos([Tensor(*shape)], no_file) == (batch, batch * frames), shape
        assert measure_videos([Tensor(*shape[1:])] * 2, no_file) == (2, 2 * frames), shape


@given(counts, counts)
def test_frames_in_lists(frames: int, others: int) -> None:
    for frame in (Picture(64, 64), Tensor(64, 64, 3), Tensor(3, 64, 64)):
        assert measure_videos([frame] * frames, no_file) == (1, frames)
        two = [[frame] * frames, [frame] * others]
        assert measure_videos(two, no_file) == (2, frames + others)


def test_encoded_videos_are_read_by_whoever_can() -> None:
    files = [b"four", bytearray(b"three"), memoryview(b"two")]
    assert measure_videos(files, len) == (3, 12)
    assert measure_videos(b"four", len) == (1, 4)
    with pytest.raises(UnknownFormError):
        measure_videos(files, lambda video: None)


@pytest.mark.parametrize("nothing", [None, [], [[]], Tensor(0, 64, 64, 3), [Tensor(1, 0, 8, 8, 3)]])
def test_nothing_counts_nothing(nothing: Any) -> None:
    assert measure_images(nothing) == []
    assert measure_videos(nothing, no_file).frames == 0


@pytest.mark.parametrize(
    "unknown",
    [
        object(),
        {"action_only_output": True},
        "text",
        Tensor(),
        Tensor(16),
        Tensor(2, 16, 64, 64),  # latents have more channels than images
        Tensor(1, 16, 21, 60, 104),
        Tensor(16, 64, 64),
        Tensor(1, 1, 1, 3, 64, 64),
        [Picture(8, 8), object()],
    ],
    ids=str,
)
def test_what_is_neither_image_nor_video_is_not_guessed_at(unknown: Any) -> None:
    with pytest.raises(UnknownFormError):
        measure_images(unknown)


@pytest.mark.parametrize(
    "unknown", [object(), [{"action_only_output": True}], Tensor(1, 16, 21, 60, 104), "text"]
)
def test_what_is_no_video_is_not_guessed_at(unknown: Any) -> None:
    with pytest.raises(UnknownFormError):
        measure_videos(unknown, no_file)


@pytest.mark.parametrize(
    ("payload", "rate"),
    [
        ({"fps": 16}, 16.0),
        ({"fps": 23.976}, 23.976),
        ({"fps": np.float32(25)}, 25.0),
        ({"fps": np.array([24])}, 24.0),
        ({"fps": [30]}, 30.0),
        ({"metadata": {"video": {"fps": 12}}}, 12.0),
        ({"fps": None, "metadata": {"video": {"fps": 12}}}, 12.0),
        ({}, None),
        ({"fps": 0}, None),
        ({"fps": -1.0}, None),
        ({"fps": float("nan")}, None),
        ({"fps": True}, None),
        ({"fps": "24"}, None),
        ({"fps": []}, None),
        ({"metadata": None}, None),
        ({"metadata": {"video": None}}, None),
    ],
)
def test_frame_rate_that_the_output_states(payload: dict[str, Any], rate: float | None) -> None:
    assert find_frame_rate(payload) == rate
    assert states_video(payload) == (rate is not None)


def test_frame_rate_on_a_device_is_not_waited_for() -> None:
    class OnDevice:
        is_cpu = False
        shape = ()

        def item(self) -> float:
            raise AssertionError("this waits for the device")

    assert find_frame_rate({"fps": OnDevice()}) is None


def test_interpolated_frames_raise_the_rate() -> None:
    assert find_rate_multiplier({"metadata": {"video": {"video_fps_multiplier": 4}}}) == 4
    assert find_rate_multiplier({"metadata": {"video": {}}}) == 1
    assert find_rate_multiplier({}) == 1
    assert states_video({"metadata": {"video": {"video_fps_multiplier": 4}}})
