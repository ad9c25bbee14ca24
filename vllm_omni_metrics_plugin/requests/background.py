"""One thread for what would hold up the event loop, behind a queue that does not grow."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from queue import SimpleQueue

from vllm_omni_metrics_plugin import internal_errors

#: Calls that wait at most; of sound, a packet each.
CAPACITY = 256
#: How long the end of the process waits for what is queued.
EXIT_SECONDS = 2.0

_Call = Callable[[], object]


class Background:
    """Makes calls in their order; what one of them raises is counted, and ends there."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def offer(self, call: _Call) -> bool:
        """Have it made soon; False if too many wait."""
        if self._queue.qsize() >= self._capacity:
            return False
        self.put(call)
        return True

    def put(self, call: _Call) -> None:
        """Have it made, however many wait; for the last call of those that were taken."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._start()
        self._queue.put(call)

    def flush(self, seconds: float) -> bool:
        """Wait until the calls that are queued now were made; False if that takes longer."""
        thread = self._thread
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            return thread is None
        reached = threading.Event()
        self._queue.put(reached.set)
        return reached.wait(seconds)

    def close(self) -> None:
        """End the thread after the calls that are queued."""
        self._queue.put(None)
        atexit.unregister(self._finish)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                if self._thread.is_alive():
                    return
                # A fork has left the thread behind, perhaps in the middle of the queue.
                self._queue = SimpleQueue()
            atexit.register(self._finish)
            self._thread = threading.Thread(
                target=self._run, args=(self._queue,), name="omni-metrics-onset", daemon=True
            )
            self._thread.start()

    def _finish(self) -> None:
        self.flush(EXIT_SECONDS)

    def _run(self, queue: SimpleQueue[_Call | None]) -> None:
        while (call := queue.get()) is not None:
            with internal_errors.suppressed("working beside the event loop"):
                call()
            del call  # the next one may be long in coming
