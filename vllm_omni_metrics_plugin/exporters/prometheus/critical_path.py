"""The samples of where requests' time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import PathSegment, ReplicaJoined, RequestFinished, hookimpl

_FAMILY = "critical_path_seconds_total"
_FIRST_PACKET, _END = catalog.BY_STEM[_FAMILY].known["anchor"]
_EVERYWHERE = ("queue", "execute", "delivery", "unknown")


class PathSamples:
    """Adds up the segments of each request's way."""

    def __init__(self, families: Families) -> None:
        self._family = families[_FAMILY]
        self._children: dict[tuple[str, str, str, int], Any] = {}
        #: Model and stage of those that other stages feed.
        self._fed: set[tuple[str, int]] = set()

    def expect(self, event: ReplicaJoined) -> None:
        """Have the segments of a stage stand at 0."""
        model, stage = event.model_name, event.stage
        self._fed.update((model, fed) for fed in event.feeds)
        way_in = "transfer" if (model, stage) in self._fed else "frontend"
        for anchor in (_FIRST_PACKET, _END):
            for segment in (*_EVERYWHERE, way_in):
                self._child(model, anchor, segment, stage)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        self._add(event.model_name, _FIRST_PACKET, event.first_packet_path)
        self._add(event.model_name, _END, event.critical_path)

    def _add(self, model_name: str, anchor: str, path: Sequence[PathSegment]) -> None:
        for part in path:
            self._child(model_name, anchor, part.segment, part.stage).inc(part.seconds)

    def _child(self, model_name: str, anchor: str, segment: str, stage: int) -> Any:
        key = model_name, anchor, segment, stage
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._family.labels(model_name, anchor, segment, stage)
        return child
