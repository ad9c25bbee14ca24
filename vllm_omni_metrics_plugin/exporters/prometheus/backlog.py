"""The samples of the work that is left."""

from __future__ import annotations

import os
import threading
import time

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.exporters.prometheus.occupancy import Replica
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.exporters.prometheus.remaining import Remaining
from vllm_omni_metrics_plugin.hooks import (
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    hookimpl,
)


class BacklogSamples:
    """Shows what is left, of whom that is known; the series of the others are not there."""

    def __init__(self, families: Families) -> None:
        self._of_stages = families["stage_backlog_seconds"]
        self._of_models = families["backlog_seconds"]
        self._remaining = Remaining()
        self._replicas: set[Replica] = set()
        self._models: set[str] = set()
        #: Where several API servers share the stages, none of them knows how long a request takes.
        self._is_known = not api_servers.is_on(os.environ)
        self._publishing = threading.Lock()

    def expect(self, event: ReplicaJoined) -> None:
        """A replica is there to work."""
        replica = (event.model_name, event.stage, event.replica)
        self._remaining.joined(replica, event.stage_type)

    def forget(self, event: ReplicaLeft) -> None:
        """It does nothing any more."""
        self._remaining.left((event.model_name, event.stage, event.replica))

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        self._remaining.arrived(event.request_id, event.model_name)

    @hookimpl
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        if event.model_name is not None:
            replica = (event.model_name, event.stage, event.replica)
            self._remaining.submitted(event.request_id, replica, event.demands)

    @hookimpl
    def omni_stage_started(self, event: StageStarted) -> None:
        if event.model_name is not None:
            replica = (event.model_name, event.stage, event.replica)
            at = time.monotonic() if event.started_at is None else event.started_at
            self._remaining.started(event.request_id, replica, at)

    @hookimpl
    def omni_stage_ended(self, event: StageEnded) -> None:
        replica = (event.model_name, event.stage, event.replica)
        at = time.monotonic() if event.ended_at is None else event.ended_at
        is_known = event.started_at is not None and event.ended_at is not None
        self._remaining.ended(event.request_id, replica, at, is_known=is_known)

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        if event.model_name is not None:
            replica = (event.model_name, event.stage, event.replica)
            cut = event.finish_reason == "length"
            self._remaining.finished(event.request_id, replica, event.tokens_out, cut=cut)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        self._remaining.closed(event.request_id)

    def publish(self) -> None:
        """Bring the families up to this moment; for a scrape, which sees all of it at once."""
        if not self._is_known:
            return
        with self._publishing:
            left = self._remaining.read(time.monotonic())
            for model_name, seconds in left.models.items():
                self._of_models.labels(model_name).set(seconds)
            for model_name in self._models - left.models.keys():
                self._of_models.remove(model_name)
            self._models = set(left.models)
            for replica, seconds in left.replicas.items():
                self._of_stages.labels(*map(str, replica)).set(seconds)
            for replica in self._replicas - left.replicas.keys():
                self._of_stages.remove(*map(str, replica))
            self._replicas = set(left.replicas)
