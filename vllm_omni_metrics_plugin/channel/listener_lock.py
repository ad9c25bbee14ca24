"""Whose turn it is to listen: of several API servers one, and another one when that has ended."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vllm_omni_metrics_plugin import internal_errors

logger = logging.getLogger("vllm.omni_metrics")

_ASK_EVERY_SECONDS = 0.25
_JOIN_SECONDS = 5.0


class ListenerLock:
    """A lock between processes, which the kernel lifts from one that ends in whatever way."""

    def __init__(self, file: Path, start: Callable[[], None]) -> None:
        """``start`` is called when the turn has come, maybe on a thread of its own.

        Nothing is opened before :meth:`begin`; ``file`` is made if it is not there.
        """
        self._file = file
        self._start = start
        self._descriptor: int | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="omni-metrics-turn", daemon=True)

    def begin(self) -> None:
        """Start at once if it is nobody's turn, else wait for it without holding anybody up."""
        if self._descriptor is not None:
            return
        try:
            # Not inherited by children, and a lock of this kind is not shared with them.
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            logger.warning(
                "omni-metrics: cannot agree on who listens for the stage engines' events in %s "
                "(%s); no samples of transfers",
                self._file,
                error,
            )
            return
        if self._take():
            self._start()
        else:
            self._thread.start()

    def stop_waiting(self) -> None:
        """``start`` is not called from now on."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _wait(self) -> None:
        with internal_errors.suppressed("waiting for the turn to listen"):
            while not self._closing.wait(_ASK_EVERY_SECONDS):
                if self._take():
                    logger.info("omni-metrics: this API server listens for the stage engines now")
                    self._start()
                    return

    def _take(self) -> bool:
        descriptor = self._descriptor
        if descriptor is None:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
