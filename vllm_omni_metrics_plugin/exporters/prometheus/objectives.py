"""The samples of verdicts, by the objective that a request was judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import ReplicaJoined, RequestJudged, hookimpl
from vllm_omni_metrics_plugin.objectives import Objective

_REQUESTS, _VIOLATIONS = "slo_requests_total", "slo_violations_total"
_VERDICTS = catalog.BY_STEM[_REQUESTS].known["verdict"]
_REASONS = catalog.BY_STEM[_VIOLATIONS].known["limit"]


class VerdictChildren:
    """The label children of one model's requests that one objective judges."""

    __slots__ = ("verdicts", "violations")

    def __init__(self, families: Families, model_name: str, objective: Objective) -> None:
        about = (model_name, objective.name)
        self.verdicts: dict[str, Any] = {
            verdict: families[_REQUESTS].labels(*about, verdict) for verdict in _VERDICTS
        }
        self.violations: dict[str, Any] = {
            limit: families[_VIOLATIONS].labels(*about, limit)
            for limit in (*objective.limits, *_REASONS)
        }


class ObjectiveSamples:
    """Counts verdicts; keeps nothing of any request."""

    def __init__(self, families: Families, objectives: Sequence[Objective]) -> None:
        self._families = families
        self._objectives = {objective.name: objective for objective in objectives}
        #: By model and objective.
        self._children: dict[tuple[str, str], VerdictChildren] = {}

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series of a model's verdicts stand at 0, beside the targets."""
        for objective in self._objectives.values():
            self._families["slo_target_ratio"].labels(objective.name).set(objective.target)
            if objective.is_about_model(event.model_name):
                self._bind(event.model_name, objective)

    @hookimpl
    def omni_request_judged(self, event: RequestJudged) -> None:
        children = self._children.get((event.model_name, event.objective))
        if children is None:
            children = self._bind(event.model_name, self._objectives[event.objective])
        children.verdicts[event.verdict].inc()
        for limit in event.broken:
            children.violations[limit].inc()

    def _bind(self, model_name: str, objective: Objective) -> VerdictChildren:
        key = (model_name, objective.name)
        children = self._children.get(key)
        if children is None:
            children = VerdictChildren(self._families, model_name, objective)
            self._children[key] = children
        return children
