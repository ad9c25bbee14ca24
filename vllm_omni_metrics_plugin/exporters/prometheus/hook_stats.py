"""The dispatcher's own counts, carried over to their families when somebody looks.

Counting in the families themselves would cost each call of each listener more than the call.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vllm_omni_metrics_plugin import api_servers, internal_errors
from vllm_omni_metrics_plugin.hooks import HookStats

#: How often the counts are published where no scrape asks for it.
_PUBLISH_EVERY_SECONDS = 1.0
_JOIN_SECONDS = 5.0
_COUNTERS = (
    "metrics_hook_calls_total",
    "metrics_hook_errors_total",
    "metrics_hook_dropped_events_total",
)


class HookStatsSamples:
    """Publishes the accounts of the hook plugins; any thread may ask it to."""

    def __init__(
        self, families: Mapping[str, Any], accounts: Callable[[], Iterable[HookStats]]
    ) -> None:
        self._families = families
        self._accounts = accounts
        self._published: dict[tuple[str, str], tuple[int, ...]] = {}
        #: With several API servers a scrape reads files, and nobody asks this process.
        self._unasked = api_servers.is_on(os.environ)
        #: Two scrapes at once must not add the same difference twice.
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="omni-metrics-accounts", daemon=True)

    def start(self) -> None:
        """Publish by ourselves from now on, if a scrape may be answered by another process."""
        if self._unasked:
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """The last words, if nobody is going to ask for them."""
        if self._thread.is_alive():
            self._closing.set()
            self._thread.join(_JOIN_SECONDS)
            atexit.unregister(self.close)
            self.publish()

    def publish(self) -> None:
        """Bring the families up to date; never raises, as a scrape would fail with it."""
        with internal_errors.suppressed("publishing the hooks' own counts"), self._lock:
            for account in self._accounts():
                self._publish(account)

    def _run(self) -> None:
        while not self._closing.wait(_PUBLISH_EVERY_SECONDS):
            self.publish()

    def _publish(self, account: HookStats) -> None:
        labels = (account.plugin, account.hook)
        self._families["metrics_hook_listening"].labels(*labels).set(account.is_on)
        before = self._published.get(labels, (0, 0, 0))
        # What a full queue drops was counted as a call for a moment, so a count may fall by one.
        now = tuple(map(max, before, (account.calls, account.errors, account.dropped)))
        self._published[labels] = now
        for stem, old, new in zip(_COUNTERS, before, now, strict=True):
            self._families[stem].labels(*labels).inc(new - old)
