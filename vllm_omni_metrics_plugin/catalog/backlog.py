"""The families of the work that is left: how long it takes to be done with what is open."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import MODEL, STAGE, Family

BACKLOG: tuple[Family, ...] = (
    Family(
        stem="backlog_seconds",
        kind="gauge",
        labels=MODEL,
        unit="seconds",
        help="Time until all that is open is done if nothing more comes; absent until it is known.",
        event="omni_stage_ended",
        formula="the largest over the stages of the mean of stage_backlog_seconds over replicas",
    ),
    Family(
        stem="stage_backlog_seconds",
        kind="gauge",
        labels=STAGE,
        unit="seconds",
        help="Work that the replica has left; absent until the stage has finished a request.",
        event="omni_stage_ended",
        formula=(
            "sum over open requests of max(0, the seconds that one with its demands takes - its "
            "share of the time since it started there); what is to come to the stage is spread "
            "evenly over its replicas"
        ),
    ),
)
