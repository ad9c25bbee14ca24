"""Turns events into samples: the parts of the exporter, registered as one hook plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from vllm_omni_metrics_plugin.exporters.prometheus.audio import AudioSamples
from vllm_omni_metrics_plugin.exporters.prometheus.backlog import BacklogSamples
from vllm_omni_metrics_plugin.exporters.prometheus.critical_path import PathSamples
from vllm_omni_metrics_plugin.exporters.prometheus.listener import ListenerSamples
from vllm_omni_metrics_plugin.exporters.prometheus.native import NativeFamilies
from vllm_omni_metrics_plugin.exporters.prometheus.objectives import ObjectiveSamples
from vllm_omni_metrics_plugin.exporters.prometheus.own_counts import OwnCounts
from vllm_omni_metrics_plugin.exporters.prometheus.pipeline import PipelineSamples
from vllm_omni_metrics_plugin.exporters.prometheus.queues import QueueSamples
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families, RegistryCollector
from vllm_omni_metrics_plugin.exporters.prometheus.requests import RequestSamples
from vllm_omni_metrics_plugin.exporters.prometheus.sessions import SessionSamples
from vllm_omni_metrics_plugin.exporters.prometheus.tokens import TokenSamples
from vllm_omni_metrics_plugin.exporters.prometheus.transfers import TransferSamples
from vllm_omni_metrics_plugin.exporters.prometheus.visual import VisualSamples
from vllm_omni_metrics_plugin.exporters.prometheus.voice import VoiceSamples
from vllm_omni_metrics_plugin.hooks import Event, HookStats, hookimpl
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.objectives import Objective


class PrometheusExporter:
    """Every part's hook implementations. Publishes nothing before an engine's first replica joins.

    ::

        registry = HookRegistry()
        registry.register(PrometheusExporter({}, registry.stats), "prometheus")
    """

    def __init__(
        self,
        buckets: Mapping[str, tuple[float, ...]],
        hook_stats: Callable[[], Iterable[HookStats]],
        publish_in: CollectorRegistry = REGISTRY,
        *,
        native: bool = True,
        players: Sequence[float] = PLAYERS,
        held: Callable[[], Mapping[tuple[str, str, str], int]] = dict,
        spans_dropped: Callable[[], Mapping[str, int]] | None = None,
        objectives: Sequence[Objective] = (),
    ) -> None:
        """``buckets`` replace the catalogue's, by family stem.

        ``players`` of streamed audio are there by the seconds that they buffer.
        ``objectives`` are those that requests are judged by.
        If ``native`` is false, the families that the engine publishes itself are left out.
        ``held`` are the counts of a :class:`~.guard.Guard`. ``spans_dropped`` are those of traces,
        by reason; None if there are no traces.
        """
        families = Families(buckets)
        self._queues = QueueSamples(families)
        self._backlog = BacklogSamples(families)
        self._own_counts = OwnCounts(families, hook_stats, self._publish_now, held, spans_dropped)
        self._collector = RegistryCollector(families.registry, self._refresh)
        self._native = None if native else NativeFamilies(publish_in)
        self._publish_in = publish_in
        self._published = False
        transfers = TransferSamples(families)
        visual = VisualSamples(families)
        parts = (
            *(RequestSamples(families), TokenSamples(families), AudioSamples(families), visual),
            *(ListenerSamples(families, players), ObjectiveSamples(families, objectives)),
            *(SessionSamples(families), transfers, PathSamples(families)),
            *(self._backlog, self._queues),
        )
        joined = [part.expect for part in parts]
        left = [transfers.forget, self._backlog.forget, self._queues.forget, visual.forget]
        pipeline = PipelineSamples(families, self._publish, joined, left)
        self._take_in(*parts, VoiceSamples(families), pipeline)

    def close(self) -> None:
        """Withdraw the families."""
        if self._published:
            self._publish_in.unregister(self._collector)
            self._published = False
        self._own_counts.close()

    def _take_in(self, *parts: object) -> None:
        """Offer the parts' hook implementations as our own, one for each hook."""
        names = {name for part in parts for name in dir(part) if name.startswith("omni_")}
        for name in names:
            implementations = [getattr(part, name) for part in parts if hasattr(part, name)]
            one = implementations[0] if len(implementations) == 1 else _all(implementations)
            setattr(self, name, one)

    def _refresh(self) -> None:
        self._own_counts.publish()
        if self._native is not None:
            self._native.leave_out()

    def _publish_now(self) -> None:
        # In this order: what the second does not show as open, the first has nothing left of.
        self._queues.publish()
        self._backlog.publish()

    def _publish(self) -> None:
        if self._native is not None:
            self._native.leave_out()
        self._collector.publish_in(self._publish_in)
        self._published = True
        self._own_counts.start()


def _all(implementations: Sequence[Callable[[Any], None]]) -> Callable[[Any], None]:
    """One implementation that calls these, in their order."""
    first, second, *others = implementations

    @hookimpl
    def each(event: Event) -> None:
        # Packets come here: two calls cost less than a loop of two.
        first(event)
        second(event)
        for implementation in others:
            implementation(event)

    return each
