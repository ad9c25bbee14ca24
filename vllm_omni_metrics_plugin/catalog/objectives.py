"""The families of verdicts on requests, by the objectives of an operator's file."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import PLUGIN, Family

OBJECTIVES: tuple[Family, ...] = (
    Family(
        stem="slo_requests_total",
        kind="counter",
        labels=("model_name", "objective", "verdict"),
        unit="requests",
        help="Every request that reached the engine once for each objective that is about it, by "
        "whether it met it.",
        event="omni_request_judged",
        formula="+1 by verdict",
        known={"verdict": ("good", "bad", "excluded", "unknown")},
    ),
    Family(
        stem="slo_violations_total",
        kind="counter",
        labels=("model_name", "objective", "limit"),
        unit="requests",
        help="What made requests bad: limits that a measured value broke, by their families, and "
        "error, left_stalled, left_late; a request may have several.",
        event="omni_request_judged",
        formula="+1 for each of broken",
        known={"limit": ("error", "left_stalled", "left_late")},
    ),
    Family(
        stem="slo_target_ratio",
        kind="gauge",
        labels=("objective",),
        unit="ratio",
        help="The share of the good and the bad requests that has to be good.",
        event=PLUGIN,
        formula="target of the objective",
        aggregate="livemax",
    ),
)
