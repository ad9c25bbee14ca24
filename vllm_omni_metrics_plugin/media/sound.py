"""A copy of the sound in a multimodal output, where it is in the memory of the host.

numpy is there with the engine; this package does without it, so it is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from vllm_omni_metrics_plugin.media.audio import channels_are_last, find_audio


class NoCopyError(Exception):
    """The sound is not copied."""

    def __init__(self, reason: Literal["on_device", "unknown_form"]) -> None:
        """``on_device``: reading it would wait for another device than the CPU."""
        super().__init__(reason)
        self.reason = reason


def copy_sound(payloads: Sequence[Mapping[str, Any]], samples: int, most: int) -> Any:
    """The new audio of an output: an array ``(channels, samples)`` of its own, not scaled.

    ``samples`` are the last ones of the payloads, as an output may repeat what came before; the
    first ``most`` of them are copied. Raises :class:`NoCopyError`.
    """
    import numpy as np

    pieces = [piece for payload in payloads for piece in _pieces(find_audio(payload))]
    wanted = samples
    new: list[Any] = []
    for piece in reversed(pieces):
        if wanted <= 0:
            break
        rows = _rows(piece)
        new.append(rows[:, -wanted:])
        wanted -= rows.shape[1]
    if wanted > 0 or len({rows.shape[0] for rows in new}) != 1:
        raise NoCopyError("unknown_form")
    if len(new) == 1:
        return new[0][:, :most].copy()
    return np.concatenate(new[::-1], axis=1)[:, :most]


def full_scale(sound: Any) -> Any:
    """The same as floats, of which 1 is the loudest; integers have their type's full scale."""
    if sound.dtype.kind == "f":
        return sound
    return sound / float(2 ** (8 * sound.dtype.itemsize - 1))


def _pieces(audio: Any) -> Iterator[Any]:
    if isinstance(audio, (list, tuple)) and not (audio and isinstance(audio[0], (int, float))):
        for piece in audio:
            yield from _pieces(piece)
    elif audio is not None:
        yield audio


def _rows(piece: Any) -> Any:
    """As ``(channels, samples)``; a view, unless the type is one that numpy has not."""
    import numpy as np

    if getattr(piece, "is_cpu", True) is False:
        raise NoCopyError("on_device")
    if isinstance(piece, (list, tuple)):
        piece = np.asarray(piece)
    elif hasattr(piece, "detach"):
        piece = piece.detach()
        # numpy has no bfloat16.
        piece = (piece.float() if piece.is_floating_point() else piece).numpy()
    elif not isinstance(piece, np.ndarray):
        raise NoCopyError("unknown_form")
    if piece.dtype.kind not in "fi":
        raise NoCopyError("unknown_form")
    while piece.ndim > 2 and piece.shape[0] == 1:
        piece = piece[0]
    if piece.ndim == 1:
        return piece[None, :]
    if piece.ndim != 2:
        raise NoCopyError("unknown_form")
    return piece.T if channels_are_last(*piece.shape) else piece
