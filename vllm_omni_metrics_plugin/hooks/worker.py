"""A thread of its own for a plugin that takes its time, behind a queue that does not grow."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any

from vllm_omni_metrics_plugin.hooks.dispatch import Hook
from vllm_omni_metrics_plugin.hooks.events import Event
from vllm_omni_metrics_plugin.hooks.listener import Listener

#: Events that wait for one plugin at most.
CAPACITY = 10_000
#: How long the end of the process waits for what is queued.
EXIT_SECONDS = 2.0

_Entry = tuple[Hook[Any], Listener, Event]


class Worker:
    """Calls one plugin's slow implementations, in the order in which the events happened."""

    def __init__(self, plugin: str, capacity: int = CAPACITY) -> None:
        self._name = f"omni-metrics-{plugin}"
        self._capacity = capacity
        self._queue: SimpleQueue[_Entry | threading.Event | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self, hook: Hook[Any], listener: Listener) -> None:
        """Call ``listener`` of ``hook`` here from now on; its hook only fills the queue."""
        listener.inline = listener.timed = False
        listener.call = self._queueing(hook, listener)

    def _queueing(self, hook: Hook[Any], listener: Listener) -> Callable[[Event], None]:
        queue, capacity = self._queue, self._capacity

        def enqueue(event: Event) -> None:
            if queue.qsize() >= capacity:
                listener.drop(f"its queue of {capacity} events is full")
            elif self._closed:
                listener.drop("it is being unregistered")
            else:
                queue.put((hook, listener, event))
                if self._thread is None:
                    self._start()

        return enqueue

    def flush(self, seconds: float) -> bool:
        """Wait until the calls that are queued now were made; False if that takes longer."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(seconds)

    def close(self) -> None:
        """Take nothing more; calls that are queued are still made."""
        self._closed = True
        self._queue.put(None)
        atexit.unregister(self._finish)

    def is_done(self) -> bool:
        """Whether it is closed and has made all calls."""
        return self._closed and (self._thread is None or not self._thread.is_alive())

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # Before the plugin's own exit handlers, which were registered earlier.
                atexit.register(self._finish)
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _finish(self) -> None:
        self.flush(EXIT_SECONDS)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            hook, listener, event = entry
            del entry  # the next one may be long in coming
            if listener.is_on:
                hook.call_queued(listener, event)
            else:
                listener.drop("it was switched off")
            del hook, listener, event


def flush_all(workers: list[Worker], seconds: float) -> bool:
    """Wait for all of them, for that long in total."""
    deadline = monotonic() + seconds
    waits = [worker.flush(max(0.0, deadline - monotonic())) for worker in workers]
    return all(waits)
