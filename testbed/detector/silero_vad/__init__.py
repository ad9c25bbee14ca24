"""In the place of the package of this name: loud is speech. The engine asks for nothing else."""

from __future__ import annotations

from typing import Any

#: Root mean square of a frame, of which 1 is the loudest.
_LOUD = 0.01


class _Loudness:
    def reset_states(self) -> None: ...

    def __call__(self, frame: Any, sample_rate: int) -> Any:
        """The probability of speech in it."""
        return (frame.square().mean().sqrt() > _LOUD).float()


def load_silero_vad(onnx: bool = False) -> _Loudness:
    return _Loudness()
