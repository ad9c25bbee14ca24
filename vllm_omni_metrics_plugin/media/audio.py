"""How many samples a piece of audio holds, in the forms the engine's models use.

A multimodal output carries its audio under ``audio`` (``model_outputs`` before the engine renames
it): one array or a list of arrays, a chunk each. ``(samples,)``, ``(channels, samples)``,
``(batch, channels, samples)`` and, as the endpoints accept it too, ``(samples, channels)`` with one
or two channels occur. Arrays are looked at by shape alone, so that nothing is copied or moved
between devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Of sound; so few samples are no packet.
_MOST_CHANNELS = 2
_AUDIO_KEYS = ("audio", "model_outputs")
_SAMPLE_RATE_KEYS = (
    "audio_sample_rate",
    "output_sample_rate",
    "sample_rate",
    "sampling_rate",
    "sr",
)


def count_samples(payload: Mapping[str, Any]) -> int | None:
    """Samples per channel of a multimodal output; None if it carries no audio at all.

    Audio that is there but empty counts 0.
    """
    audio = find_audio(payload)
    return None if audio is None else _samples(audio)


def find_audio(payload: Mapping[str, Any]) -> Any:
    """The audio of a multimodal output, in any form; None if it carries none."""
    for key in _AUDIO_KEYS:
        audio = payload.get(key)
        if audio is not None:
            return audio
    return None


def find_sample_rate(payload: Mapping[str, Any]) -> int | None:
    """The sample rate in Hz that the output itself states; None if it states none."""
    for key in _SAMPLE_RATE_KEYS:
        rate = _positive_int(payload.get(key))
        if rate is not None:
            return rate
    return None


def _samples(audio: Any) -> int:
    shape = getattr(audio, "shape", None)
    if shape is not None:
        if 0 in shape:
            return 0
        if len(shape) < 2:
            return int(shape[0]) if shape else 1
        first, second = int(shape[-2]), int(shape[-1])
        return int(math.prod(shape[:-2])) * (first if channels_are_last(first, second) else second)
    if isinstance(audio, Sequence) and not isinstance(audio, (str, bytes)):
        if audio and isinstance(audio[0], (int, float)):
            return len(audio)
        return sum(_samples(chunk) for chunk in audio if chunk is not None)
    return 0


def channels_are_last(first: int, second: int) -> bool:
    """Of a two-dimensional array, whose channels come first unless they can only come second."""
    return second <= _MOST_CHANNELS < first


def _positive_int(value: Any) -> int | None:
    """The number in a plain value, in an array of one or in a list of them; None for the rest."""
    if isinstance(value, (list, tuple)):
        return _positive_int(value[-1]) if value else None
    if getattr(value, "is_cpu", True) is False:
        return None  # reading it would wait for the device
    if hasattr(value, "numel") or hasattr(value, "ndim"):
        flat = value.reshape(-1)
        value = flat[-1].item() if len(flat) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if math.isfinite(value) and value >= 1 else None
