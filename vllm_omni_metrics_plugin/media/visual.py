"""How many images, pixels and frames an output holds, in the forms the engine's pipelines use.

Images come as PIL images, arrays and tensors, single, stacked or in lists, and lists of lists from
layered models. Videos come as lists of frames, as ``[batch, frames, height, width, channels]`` or
with the channels before or after the frames, and as encoded files. Everything is looked at by
shape alone, so that nothing is copied or moved between devices.
docs/reference/visual-outputs.md says which pipeline makes which form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: How many channels an image has: colour, colour and opacity, grey. Latents have more.
_CHANNELS = (3, 4, 1)


class UnknownFormError(Exception):
    """Something that is neither an image nor a video as far as its form tells."""


class Videos(NamedTuple):
    """How many videos an output holds, and how many frames all of them together."""

    videos: int
    frames: int


def measure_images(images: Any) -> list[int]:
    """The pixels (width x height) of each image in an output; raises :class:`UnknownFormError`."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [pixels for item in images for pixels in measure_images(item)]
    size = getattr(images, "size", None)
    if isinstance(size, tuple) and len(size) == 2:  # PIL; an array's size is a number
        return [int(size[0]) * int(size[1])]
    shape = _shape(images)
    if 0 in shape:
        return []
    if len(shape) == 2:
        return [math.prod(shape)]
    if len(shape) == 3:
        return [_without_channels(shape, (-1, 0))]
    frames, pixels = _frames(shape)
    # Of videos that were asked for as images, the endpoints send one frame each.
    return [pixels] * (shape[0] if len(shape) == 5 else frames)


def measure_videos(videos: Any, frames_in_file: Callable[[bytes], int | None]) -> Videos:
    """Videos and frames in an output; raises :class:`UnknownFormError`.

    ``frames_in_file`` reads the number of frames of an encoded video, None if it cannot.
    """
    if videos is None:
        return Videos(0, 0)
    if isinstance(videos, (bytes, bytearray, memoryview)):
        frames = frames_in_file(bytes(videos))
        if frames is None:
            raise UnknownFormError("an encoded video that cannot be read")
        return Videos(1, frames)
    if isinstance(videos, (list, tuple)):
        if videos and all(map(_is_frame, videos)):
            return Videos(1, len(videos))
        each = [measure_videos(video, frames_in_file) for video in videos]
        return Videos(sum(one.videos for one in each), sum(one.frames for one in each))
    shape = _shape(videos)
    if 0 in shape:
        return Videos(0, 0)
    if len(shape) == 3:
        return Videos(1, 1)
    frames, _ = _frames(shape)
    return Videos(shape[0] if len(shape) == 5 else 1, frames)


def find_frame_rate(payload: Mapping[str, Any]) -> float | None:
    """The frame rate in Hz that a multimodal output itself states; None if it states none."""
    stated = _positive(payload.get("fps"))
    return stated if stated is not None else _positive(_about_video(payload).get("fps"))


def find_rate_multiplier(payload: Mapping[str, Any]) -> float:
    """By how much interpolated frames raise the frame rate; 1 without any."""
    return _positive(_about_video(payload).get("video_fps_multiplier")) or 1.0


def states_video(payload: Mapping[str, Any]) -> bool:
    """Whether a multimodal output says of itself that it is a video."""
    return bool(_about_video(payload)) or find_frame_rate(payload) is not None


def _about_video(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = payload.get("metadata")
    about = metadata.get("video") if isinstance(metadata, Mapping) else None
    return about if isinstance(about, Mapping) else {}


def _shape(value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)
    if shape is None or not 2 <= len(shape) <= 5:
        raise UnknownFormError(f"{type(value).__name__} of shape {shape}")
    return tuple(map(int, shape))


def _is_frame(value: Any) -> bool:
    if isinstance(getattr(value, "size", None), tuple):
        return True
    return len(getattr(value, "shape", ())) in (2, 3)


def _frames(shape: tuple[int, ...]) -> tuple[int, int]:
    """Frames, and pixels of each, in a stack of images or of videos."""
    batch = shape[0] if len(shape) == 5 else 1
    stack = shape[-4:]
    axis = _channel_axis(stack, (-1, 1, 0))
    frames = stack[1] if axis == 0 else stack[0]
    return batch * frames, math.prod(stack) // (frames * stack[axis])


def _without_channels(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return math.prod(shape) // shape[_channel_axis(shape, axes)]


def _channel_axis(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    for channels in _CHANNELS:
        for axis in axes:
            if shape[axis] == channels:
                return axis
    raise UnknownFormError(f"no channels in the shape {shape}")


def _positive(value: Any) -> float | None:
    """The number in a plain value, or in an array or a list of one; None for the rest."""
    if isinstance(value, (list, tuple)):
        return _positive(value[0]) if value else None
    if getattr(value, "is_cpu", True) is False:
        return None  # reading it would wait for the device
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
