"""Pauses of a stage, as a test asks for them: faults that can be timed.

``VLLM_OMNI_CPU_PAUSES`` names a file with seconds, one number for each step that makes something;
whoever writes it anew begins anew. Without the variable or the file, nothing happens.
"""

from __future__ import annotations

import os
import time


class Pauses:
    def __init__(self) -> None:
        self._path = os.environ.get("VLLM_OMNI_CPU_PAUSES")
        self._written: int | None = None
        self._left: list[float] = []

    def pause(self) -> None:
        """Before a step."""
        if self._path is None:
            return
        try:
            written = os.stat(self._path).st_mtime_ns
            if written != self._written:
                with open(self._path) as file:
                    self._left = [float(seconds) for seconds in file.read().split()]
                self._written = written
        except FileNotFoundError:
            self._left = []
        if self._left:
            time.sleep(self._left.pop(0))
