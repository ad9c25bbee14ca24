"""The plugin's own counts, carried over to their families when somebody looks.

Counting in the families themselves would cost each call of each hook implementation more than the
call.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping

from vllm_omni_metrics_plugin import api_servers, catalog, internal_errors
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import HookStats
from vllm_omni_metrics_plugin.hooks.loading import ALL_BUILT_IN, BUILT_IN

#: How often the counts are published where no scrape asks for it.
_PUBLISH_EVERY_SECONDS = 1.0
_JOIN_SECONDS = 5.0
_COUNTERS = (
    "metrics_hook_calls_total",
    "metrics_hook_errors_total",
    "metrics_hook_dropped_events_total",
)
_SPANS = "metrics_spans_dropped_total"
_JUDGED = catalog.BY_STEM["metrics_events_total"].known["hook"]


class OwnCounts:
    """Publishes what hook plugins did and where the plugin failed; any thread may ask it to."""

    def __init__(
        self,
        families: Families,
        hook_stats: Callable[[], Iterable[HookStats]],
        others: Callable[[], None] = lambda: None,
        held: Callable[[], Mapping[tuple[str, str, str], int]] = dict,
        spans_dropped: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """``others`` brings up to date what else depends on the moment of a scrape.

        ``held`` says by plugin, family and label how often a series was too much.
        ``spans_dropped`` says by reason how many spans were lost, where there are traces.
        """
        self._families = families
        self._others = others
        self._held = held
        self._spans_dropped = spans_dropped or dict
        if spans_dropped is not None:
            for reason in catalog.BY_STEM[_SPANS].known["reason"]:
                families.expect(_SPANS, reason)
        self._hook_stats = hook_stats
        self._hooks: dict[tuple[str, str], tuple[int, ...]] = {}
        self._events: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._calls_held: dict[tuple[str, str, str], int] = {}
        self._spans: dict[str, int] = {}
        #: With several API servers a scrape reads files, and nobody asks this process.
        self._unasked = api_servers.is_on(os.environ)
        #: Two scrapes at once must not add the same difference twice.
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="omni-metrics-counts", daemon=True)
        if self._unasked:
            # Now, and so after all that begins later and may still count something at its end.
            atexit.register(self.close)

    def start(self) -> None:
        """Publish by ourselves from now on, if a scrape may be answered by another process."""
        if self._unasked:
            self._thread.start()

    def close(self) -> None:
        """Publish once more, if nobody is going to ask."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._closing.set()
            self._thread.join(_JOIN_SECONDS)
            self.publish()

    def publish(self) -> None:
        """Bring the families up to date; never raises, as a scrape would fail with it."""
        with internal_errors.suppressed("publishing what is now"):
            self._others()
        with internal_errors.suppressed("publishing the plugin's own counts"), self._lock:
            try:
                for stats in self._hook_stats():
                    self._publish_hook(stats)
                self._publish_held()
                self._publish_spans()
            finally:
                self._publish_errors()

    def _run(self) -> None:
        while not self._closing.wait(_PUBLISH_EVERY_SECONDS):
            self.publish()

    def _publish_hook(self, stats: HookStats) -> None:
        labels = (stats.plugin, stats.hook)
        if stats.plugin == BUILT_IN:
            self._publish_events(stats)
        is_news = labels in self._hooks or stats.errors or stats.dropped
        if stats.plugin in ALL_BUILT_IN and not is_news:
            return  # that what is built in works
        self._families["metrics_hook_listening"].labels(*labels).set(stats.is_on)
        before = self._hooks.get(labels, (0, 0, 0))
        # What a full queue drops was counted as a call for a moment, so a count may fall by one.
        now = tuple(map(max, before, (stats.calls, stats.errors, stats.dropped)))
        self._hooks[labels] = now
        for stem, old, new in zip(_COUNTERS, before, now, strict=True):
            self._families[stem].labels(*labels).inc(new - old)

    def _publish_events(self, stats: HookStats) -> None:
        added = stats.calls - self._events.get(stats.hook, 0)
        if stats.hook in _JUDGED and added > 0:
            self._events[stats.hook] = stats.calls
            self._families["metrics_events_total"].labels(stats.hook).inc(added)

    def _publish_held(self) -> None:
        for labels, count in self._held().items():
            added = count - self._calls_held.get(labels, 0)
            self._calls_held[labels] = count
            self._families["metrics_held_series_total"].labels(*labels).inc(added)

    def _publish_spans(self) -> None:
        for reason, count in self._spans_dropped().items():
            added = count - self._spans.get(reason, 0)
            self._spans[reason] = count
            self._families[_SPANS].labels(reason).inc(added)

    def _publish_errors(self) -> None:
        for place, count in internal_errors.errors.counts().items():
            added = max(0, count - self._errors.get(place, 0))
            self._errors[place] = max(count, self._errors.get(place, 0))
            self._families["metrics_internal_errors_total"].labels(place).inc(added)
