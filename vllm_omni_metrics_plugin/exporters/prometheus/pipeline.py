"""What the pipeline is: its replicas, and what became of each patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import PatchReported, ReplicaJoined, ReplicaLeft, hookimpl


class PipelineSamples:
    """Shows what holds now; the first replica that joins has everything published."""

    def __init__(
        self,
        families: Families,
        publish: Callable[[], None],
        joined: Sequence[Callable[[ReplicaJoined], None]],
        left: Sequence[Callable[[ReplicaLeft], None]],
    ) -> None:
        """``joined`` and ``left`` are called with each replica that joins and leaves."""
        self._families = families
        self._publish = publish
        self._joined = joined
        self._left = left
        self._published = False
        self._replicas: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self._patches: dict[str, tuple[str, ...]] = {}

    @hookimpl
    def omni_patch_reported(self, event: PatchReported) -> None:
        earlier = self._patches.get(event.name)
        labels = (event.name, event.target, event.status, event.reason)
        self._patches[event.name] = labels
        if self._published:
            if earlier is not None:
                self._families.withdraw("metrics_patch_info", earlier)
            self._families["metrics_patch_info"].labels(*labels).set(1)

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        if not self._published:
            # Not before: a process that only starts several API servers must have no share in them.
            for patch in self._patches.values():
                self._families["metrics_patch_info"].labels(*patch).set(1)
            self._publish()
            self._published = True
        for expect in self._joined:
            expect(event)
        replica = (event.model_name, event.stage, event.replica)
        labels = (*map(str, replica), event.stage_name, event.stage_type)
        self._replicas[replica] = labels
        self._families["stage_info"].labels(*labels).set(1)

    @hookimpl
    def omni_replica_left(self, event: ReplicaLeft) -> None:
        for forget in self._left:
            forget(event)
        labels = self._replicas.pop((event.model_name, event.stage, event.replica), None)
        if labels is not None:
            self._families.withdraw("stage_info", labels)
