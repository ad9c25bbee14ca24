"""The Prometheus families, fed by the hooks like any other listener.

The families live in a registry of their own, which one collector without a name shows to the
default registry. vLLM drops collectors by their names whenever it builds a stat logger (any name
with "vllm" in it, later the prefix ``vllm:``), so this collector stays, and so do its counts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vllm_omni_metrics_plugin import api_servers, catalog
from vllm_omni_metrics_plugin.catalog import Family
from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica
from vllm_omni_metrics_plugin.exporters.prometheus.hook_stats import HookStatsSamples
from vllm_omni_metrics_plugin.exporters.prometheus.transfers import TransferSamples
from vllm_omni_metrics_plugin.exporters.prometheus.visual import VisualSamples
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    PatchReported,
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    StageSubmitted,
    hookimpl,
    plugins,
)

logger = logging.getLogger("vllm.omni_metrics")

#: Outcomes of requests that the server never accepted or that did not run to their natural end.
_NOT_ACCEPTED = frozenset({"rejected"})
_CUT_SHORT = frozenset({"abort", "error"})


class RegistryCollector(Collector):
    """Shows one registry's families to another one, brought up to date by ``refresh``."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
        self._registry = registry
        self._refresh = refresh

    def collect(self) -> Iterable[Metric]:
        self._refresh()
        return self._registry.collect()

    def describe(self) -> Iterable[Metric]:
        return self._registry.collect()


class ModelChildren:
    """The label children of one model's request families, bound once."""

    __slots__ = ("_finished", "_reasons", "latency", "model_name", "queue", "running", "waiting")

    def __init__(self, families: Mapping[str, Any], model_name: str) -> None:
        self.model_name = model_name
        self.running = families["num_requests_running"].labels(model_name)
        self.waiting = families["num_requests_waiting"].labels(model_name)
        self.latency = families["e2e_request_latency_seconds"].labels(model_name)
        self.queue = families["request_queue_time_seconds"].labels(model_name)
        self._finished = families["requests_success_total"]
        self._reasons: dict[str, Any] = {}

    def finished(self, reason: str) -> Any:
        child = self._reasons.get(reason)
        if child is None:
            child = self._reasons[reason] = self._finished.labels(self.model_name, reason)
        return child


class AudioChildren:
    """The label children of one stage replica's audio families."""

    __slots__ = ("duration", "frames", "rtf", "ttfp")

    def __init__(self, families: Mapping[str, Any], labels: Labels) -> None:
        self.ttfp = families["audio_ttfp_seconds"].labels(*labels)
        self.duration = families["audio_duration_seconds"].labels(*labels)
        self.rtf = families["audio_rtf"].labels(*labels)
        self.frames = families["audio_frames_total"].labels(*labels)


class PrometheusExporter(VisualSamples, TransferSamples):
    """Turns events into samples. Nothing is published before an engine's first replica joins."""

    def __init__(
        self,
        buckets: Mapping[str, tuple[float, ...]],
        publish_in: CollectorRegistry = REGISTRY,
    ) -> None:
        """``buckets`` replace the catalogue's, by family stem."""
        registry = CollectorRegistry()
        self._families: dict[str, Any] = {
            family.stem: _metric(family, buckets.get(family.stem, family.buckets), registry)
            for family in catalog.FAMILIES
        }
        self._hook_accounts = HookStatsSamples(self._families, plugins.stats)
        self._window = RegistryCollector(registry, self._hook_accounts.publish)
        self._publish_in = publish_in
        self._published = False
        #: Open requests, by id, that no stage was given yet, with their model names.
        self._waiting: dict[str, str] = {}
        #: Open requests that a stage was given.
        self._running: set[str] = set()
        #: Held while a request changes between the two, which two threads do.
        self._lock = threading.Lock()
        #: Labels of the series that exist, by seam and by replica.
        self._patches: dict[str, tuple[str, ...]] = {}
        self._members: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self._models: dict[str, ModelChildren] = {}
        self._audio = PerReplica(AudioChildren, self._families)
        self._bind_visual(self._families)
        self._bind_transfers()

    def close(self) -> None:
        """Withdraw the families."""
        if self._published:
            self._publish_in.unregister(self._window)
            self._hook_accounts.close()
            self._published = False

    @hookimpl
    def omni_patch_reported(self, event: PatchReported) -> None:
        earlier = self._patches.get(event.name)
        labels = (event.name, event.target, event.status, event.reason)
        self._patches[event.name] = labels
        if self._published:
            info = self._families["metrics_patch_info"]
            if earlier is not None:
                _withdraw(info, earlier)
            info.labels(*labels).set(1)

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        if not self._published:
            self._publish()
        self._model_children(event.model_name)
        member = (event.model_name, event.stage, event.replica)
        labels = (*map(str, member), event.stage_name, event.stage_type)
        self._members[member] = labels
        self._families["stage_info"].labels(*labels).set(1)

    @hookimpl
    def omni_replica_left(self, event: ReplicaLeft) -> None:
        labels = self._members.pop((event.model_name, event.stage, event.replica), None)
        if labels is not None:
            _withdraw(self._families["stage_info"], labels)

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        with self._lock:
            self._waiting[event.request_id] = event.model_name
        self._model_children(event.model_name).waiting.inc()

    @hookimpl
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        with self._lock:
            model_name = self._waiting.pop(event.request_id, None)
            if model_name is None:
                return
            self._running.add(event.request_id)
        model = self._model_children(model_name)
        model.waiting.dec()
        model.running.inc()

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.replica is None:
            self._missing("audio_frames_total", "unknown_replica")
            if event.index == 0 and event.streamed:
                self._missing("audio_ttfp_seconds", "unknown_replica")
            return
        children = self._audio[event.model_name, event.stage, event.replica]
        children.frames.inc(event.samples)
        if event.index == 0 and event.streamed:
            children.ttfp.observe(event.since_arrival_seconds)

    @hookimpl
    def omni_audio_finished(self, event: AudioFinished) -> None:
        if event.samples == 0 and event.streamed:
            self._missing("audio_ttfp_seconds", "empty_audio")
        if event.duration_seconds is None or event.replica is None:
            reason = _why_no_duration(event)
            self._missing("audio_duration_seconds", reason)
            self._missing("audio_rtf", reason)
            return
        children = self._audio[event.model_name, event.stage, event.replica]
        children.duration.observe(event.duration_seconds)
        if event.generation_seconds is None:
            self._missing("audio_rtf", "no_generation_time")
        else:
            children.rtf.observe(event.generation_seconds / event.duration_seconds)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        model = self._model_children(event.model_name)
        if event.outcome not in _NOT_ACCEPTED:
            model.finished(event.outcome).inc()
            if event.queue_seconds is not None:
                model.queue.observe(event.queue_seconds)
            if event.outcome not in _CUT_SHORT:
                model.latency.observe(event.end_to_end_seconds)
        # Last, so that a scrape which sees the server idle sees all that it has done.
        with self._lock:
            waiting = self._waiting.pop(event.request_id, None) is not None
            running = event.request_id in self._running
            self._running.discard(event.request_id)
        if waiting:
            model.waiting.dec()
        elif running:
            model.running.dec()

    def _publish(self) -> None:
        # Not before: a process that only starts several API servers must have no share in them.
        for labels in self._patches.values():
            self._families["metrics_patch_info"].labels(*labels).set(1)
        _make_room(self._publish_in, self._window)
        self._publish_in.register(self._window)
        self._published = True
        self._hook_accounts.start()

    def _model_children(self, model_name: str) -> ModelChildren:
        children = self._models.get(model_name)
        if children is None:
            children = self._models[model_name] = ModelChildren(self._families, model_name)
        return children

    def _missing(self, stem: str, reason: str) -> None:
        self._families["metrics_missing_samples_total"].labels(
            catalog.BY_STEM[stem].name, reason
        ).inc()


def _make_room(registry: CollectorRegistry, newcomer: Collector) -> None:
    """Take out what has a name of ours: vllm-omni 0.22 has six families that we have too."""
    holders = {
        registry._names_to_collectors[name]
        for name in registry._get_names(newcomer)  # type: ignore[no-untyped-call]
        if name in registry._names_to_collectors
    }
    for holder in holders:
        logger.info("omni-metrics: publishes %s in the engine's place", _name(holder))
        registry.unregister(holder)


def _name(collector: Collector) -> str:
    return str(getattr(collector, "_name", type(collector).__name__))


def _withdraw(info: Gauge, labels: tuple[str, ...]) -> None:
    # In multiprocess mode a series cannot be removed; 0 says that it no longer holds.
    info.labels(*labels).set(0)
    if not api_servers.is_on(os.environ):  # it would only warn
        info.remove(*labels)


def _why_no_duration(event: AudioFinished) -> str:
    if event.samples == 0:
        return "empty_audio"
    return "no_sample_rate" if event.sample_rate is None else "unknown_replica"


def _metric(
    family: Family, buckets: tuple[float, ...], registry: CollectorRegistry
) -> MetricWrapperBase:
    if family.kind == "histogram":
        return Histogram(
            family.name, family.help, family.labels, buckets=buckets, registry=registry
        )
    if family.kind == "counter":
        return Counter(family.name, family.help, family.labels, registry=registry)
    return Gauge(
        family.name,
        family.help,
        family.labels,
        multiprocess_mode=family.aggregate,
        registry=registry,
    )
