"""Qwen3-Omni for releases up to 0.28, which take the talker's input from layer 24 in any case.

The configuration's ``accept_hidden_layer`` says which layer's input is captured, but what hands it
to the talker, ``thinker2talker_async_chunk``, looks for the real model's.
"""

from __future__ import annotations

from pathlib import Path

from testbed.models import qwen3_omni


def write(folder: Path) -> None:
    qwen3_omni.write(folder, hidden_layer=24)
