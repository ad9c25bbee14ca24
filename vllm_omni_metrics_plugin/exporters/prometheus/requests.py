"""The samples of requests, whatever they ask for."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.children import exemplar_of
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    ReplicaJoined,
    RequestArrived,
    RequestFinished,
    hookimpl,
)

#: The outcome of requests that the server never accepted; it is all that is said of them.
_NOT_ACCEPTED = "rejected"
#: Outcomes of requests that did not run to their natural end.
_CUT_SHORT = frozenset({"abort", "error"})
_REASONS = catalog.BY_STEM["requests_success_total"].known["finished_reason"]
_FAILURES = catalog.BY_STEM["requests_failed_total"].known["reason"]


class ModelChildren:
    """The label children of one model's request families, bound once."""

    __slots__ = ("_failures", "_finished", "_reasons", "latency", "model_name", "queue")

    def __init__(self, families: Families, model_name: str) -> None:
        self.model_name = model_name
        self.latency = families["e2e_request_latency_seconds"].labels(model_name)
        self.queue = families["request_queue_time_seconds"].labels(model_name)
        self._finished = families["requests_success_total"]
        self._reasons: dict[str, Any] = {}
        for reason in _REASONS:
            self.finished(reason)
        failed = families["requests_failed_total"]
        self._failures = {reason: failed.labels(model_name, reason) for reason in _FAILURES}

    def finished(self, reason: str) -> Any:
        child = self._reasons.get(reason)
        if child is None:
            child = self._reasons[reason] = self._finished.labels(self.model_name, reason)
        return child

    def failed(self, failure: str | None) -> Any:
        """``other`` for a word that the catalogue does not have, and without one."""
        return self._failures.get(failure or "") or self._failures["other"]


class RequestSamples:
    """Counts and times requests; keeps nothing of any of them."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._models: dict[str, ModelChildren] = {}

    def model(self, model_name: str) -> ModelChildren:
        """A model's children; with the first call its families stand at 0."""
        children = self._models.get(model_name)
        if children is None:
            children = self._models[model_name] = ModelChildren(self._families, model_name)
        return children

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series stand at 0 that a model has whatever it makes."""
        self.model(event.model_name)
        self._families.expect_missing("e2e_request_latency_seconds", "request_queue_time_seconds")
        for hook in ("omni_request_arrived", "omni_stage_finished", "omni_request_finished"):
            self._families.expect("metrics_events_total", hook)

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        self.model(event.model_name)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        model = self.model(event.model_name)
        model.finished(event.outcome).inc()
        if event.outcome == _NOT_ACCEPTED or event.outcome in _CUT_SHORT:
            model.failed(event.failure).inc()
        if event.outcome != _NOT_ACCEPTED:
            if event.queue_seconds is not None:
                model.queue.observe(event.queue_seconds)
            elif event.started:
                reason = "unknown_arrival" if event.end_to_end_seconds is None else "unknown_start"
                self._families.missing(reason, "request_queue_time_seconds")
            if event.outcome in _CUT_SHORT:
                pass
            elif event.end_to_end_seconds is None:
                self._families.missing(_why_no_latency(event), "e2e_request_latency_seconds")
            else:
                model.latency.observe(event.end_to_end_seconds, exemplar_of(event))


def _why_no_latency(event: RequestFinished) -> str:
    return "during_input" if event.during_input else "unknown_arrival"
