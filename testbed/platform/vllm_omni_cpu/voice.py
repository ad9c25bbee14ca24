"""A voice for vocoders whose random weights give them none: what they make is below -90 dBFS.

A stream is a tone after as many seconds of silence as the file says that
``VLLM_OMNI_CPU_SILENCE`` names; after none without the variable or the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from typing import Any

import torch

#: Hz: the tiny models' own sample rate, and the tone.
_RATE = 24_000
_TONE = 220
_LOUDNESS = 0.2


class Voice:
    def __init__(self) -> None:
        self._path = os.environ.get("VLLM_OMNI_CPU_SILENCE")
        #: By request: samples of silence in all, and samples so far.
        self._streams: dict[str, tuple[int, int]] = {}

    def speak(self, outputs: Any, request_ids: Iterable[str], known: Collection[str]) -> None:
        """Add the tone to what a step made of each request; forget those that are not ``known``."""
        for gone in [request_id for request_id in self._streams if request_id not in known]:
            del self._streams[gone]
        sounds = outputs.get("model_outputs") if isinstance(outputs, dict) else outputs
        if isinstance(sounds, (list, torch.Tensor)):
            for request_id, sound in zip(request_ids, sounds, strict=False):
                if isinstance(sound, torch.Tensor) and sound.is_floating_point():
                    self._add_tone(request_id, sound)

    def _add_tone(self, request_id: str, sound: torch.Tensor) -> None:
        known = self._streams.get(request_id)
        silence, begin = (round(self._silence() * _RATE), 0) if known is None else known
        end = begin + sound.shape[-1]
        self._streams[request_id] = (silence, end)
        if end > silence:
            at = torch.arange(max(silence, begin), end, dtype=torch.float64) - silence
            tone = _LOUDNESS * torch.sin(2 * math.pi * _TONE / _RATE * at)
            sound[..., -len(at) :] += tone.to(sound.dtype)

    def _silence(self) -> float:
        try:
            if self._path is not None:
                with open(self._path) as file:
                    return float(file.read())
        except FileNotFoundError:
            pass
        return 0.0
