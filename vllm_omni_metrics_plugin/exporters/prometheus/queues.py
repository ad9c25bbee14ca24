"""The samples of waiting and executing."""

from __future__ import annotations

import os
import threading
import time

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica
from vllm_omni_metrics_plugin.exporters.prometheus.occupancy import Occupancy, Replica
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    MediaPacket,
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

_OF_A_START = ("stage_queue_time_seconds", "stage_input_wait_seconds")


class LoadChildren:
    """The label children of one model."""

    __slots__ = ("oldest", "running", "waiting")

    def __init__(self, families: Families, model_name: str) -> None:
        self.running = families["num_requests_running"].labels(model_name)
        self.waiting = families["num_requests_waiting"].labels(model_name)
        self.oldest = families["oldest_waiting_seconds"].labels(model_name)


class QueueChildren:
    """The label children of one stage replica."""

    __slots__ = ("busy", "busy_shown", "execute", "generation", "queue", "running", "waiting")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.running = families["stage_requests_running"].labels(*labels)
        self.waiting = families["stage_requests_waiting"].labels(*labels)
        self.busy = families["stage_busy_seconds_total"].labels(*labels)
        #: What was added to the counter so far, in seconds.
        self.busy_shown = 0.0
        self.queue = families["stage_queue_time_seconds"].labels(*labels)
        self.execute = families["stage_execute_time_seconds"].labels(*labels)
        self.generation = families["stage_generation_time_seconds"].labels(*labels)


class FedChildren:
    """The label children of one replica of a stage that others feed, beside those of any."""

    __slots__ = ("input_wait",)

    def __init__(self, families: Families, labels: Labels) -> None:
        self.input_wait = families["stage_input_wait_seconds"].labels(*labels)


class QueueSamples:
    """Shows who waits and who executes, and times both."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._occupancy = Occupancy()
        self._models: dict[str, LoadChildren] = {}
        self._replicas = PerReplica(QueueChildren, families)
        self._fed = PerReplica(FedChildren, families)
        #: Model and stage of those that others send payloads to.
        self._fed_stages: set[tuple[str, int]] = set()
        #: The replicas of stages of tokens, which begin with their first payload. A diffusion
        #: engine begins without, and fetches it when it needs it.
        self._of_tokens: set[Replica] = set()
        #: With several API servers a scrape reads files, and nobody asks this process.
        self._unasked = api_servers.is_on(os.environ)
        self._publishing = threading.Lock()

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series of a replica stand at 0 before its first sample."""
        replica = (event.model_name, event.stage, event.replica)
        self._occupancy.expect(replica)
        self._replicas.expect(event)
        self._families.expect_missing(
            *("stage_queue_time_seconds", "stage_execute_time_seconds"),
            "stage_generation_time_seconds",
        )
        self._fed_stages.update((event.model_name, stage) for stage in event.feeds)
        if event.stage_type != "diffusion":
            self._of_tokens.add(replica)
        for known in self._of_tokens:
            if known[:2] in self._fed_stages:
                self._fed[known]
                self._families.expect_missing("stage_input_wait_seconds")
        self.publish()

    def forget(self, event: ReplicaLeft) -> None:
        """It executes nothing any more."""
        replica = (event.model_name, event.stage, event.replica)
        self._occupancy.left(replica, time.monotonic())
        self._changed()

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        self._occupancy.arrived(event.request_id, event.model_name, event.arrived_at)
        self._changed()

    @hookimpl
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        if event.model_name is not None:
            replica = (event.model_name, event.stage, event.replica)
            self._occupancy.submitted(event.request_id, replica)
            if self._unasked:  # and it may be another server that hears of the start
                self._occupancy.started(event.request_id, replica, event.submitted_at)
            self._changed()

    @hookimpl
    def omni_stage_started(self, event: StageStarted) -> None:
        if event.model_name is None or event.parent_request_id is not None:
            return  # a part of a request that counts itself
        replica = (event.model_name, event.stage, event.replica)
        at = time.monotonic() if event.started_at is None else event.started_at
        self._occupancy.started(event.request_id, replica, at)
        self._observe_start(event, replica)
        self._changed()

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.index == 0:
            self._occupancy.gave_output(event.request_id, event.stage, event.left_at)

    @hookimpl
    def omni_stage_ended(self, event: StageEnded) -> None:
        replica = (event.model_name, event.stage, event.replica)
        at = time.monotonic() if event.ended_at is None else event.ended_at
        self._occupancy.ended(event.request_id, replica, at)
        if event.started_at is None:
            self._missing("unknown_start", "stage_execute_time_seconds")
        elif event.ended_at is None:
            self._missing("unknown_end", "stage_execute_time_seconds")
        else:
            seconds = max(0.0, event.ended_at - event.started_at)
            self._replicas[replica].execute.observe(seconds)
        self._changed()

    @hookimpl
    def omni_stage_finished(self, event: StageFinished) -> None:
        if event.model_name is None:
            return
        replica = (event.model_name, event.stage, event.replica)
        self._occupancy.ended(event.request_id, replica, event.finished_at)
        if event.generation_seconds is None:
            self._missing("no_generation_time", "stage_generation_time_seconds")
        else:
            self._replicas[replica].generation.observe(event.generation_seconds)
        self._changed()

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        # After all else of the request, so that a scrape which sees the server idle sees it all.
        self._occupancy.closed(event.request_id, time.monotonic() if self._unasked else None)
        self._changed()

    def publish(self) -> None:
        """Bring the families up to this moment; for a scrape, which sees all of it at once."""
        with self._publishing:
            now = time.monotonic()
            models, replicas = self._occupancy.read(now)
            for name, load in models.items():
                shown = self._models.get(name)
                if shown is None:
                    shown = self._models[name] = LoadChildren(self._families, name)
                shown.running.set(load.running)
                shown.waiting.set(load.waiting)
                since = load.waiting_since
                shown.oldest.set(0.0 if since is None else max(0.0, now - since))
            for replica, work in replicas.items():
                children = self._replicas[replica]
                children.running.set(work.running)
                children.waiting.set(work.waiting)
                # An end may be told a moment late, when some time after it was counted already.
                added = max(0.0, work.busy_seconds - children.busy_shown)
                children.busy_shown += added
                children.busy.inc(added)

    def _changed(self) -> None:
        if self._unasked:
            self.publish()

    def _observe_start(self, event: StageStarted, replica: Replica) -> None:
        fed = replica in self._of_tokens and replica[:2] in self._fed_stages
        stems = _OF_A_START if fed else _OF_A_START[:1]
        if event.started_at is None or event.submitted_at is None:
            self._missing("unknown_start", *stems)
        elif not fed:
            waited = max(0.0, event.started_at - event.submitted_at)
            self._replicas[replica].queue.observe(waited)
        elif event.input_at is None:
            self._missing("unknown_input", *stems)
        else:
            ready = min(max(event.submitted_at, event.input_at), event.started_at)
            self._fed[replica].input_wait.observe(max(0.0, ready - event.submitted_at))
            self._replicas[replica].queue.observe(max(0.0, event.started_at - ready))
