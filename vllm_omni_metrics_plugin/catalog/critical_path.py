"""The family of where requests' time goes."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import Family

CRITICAL_PATH: tuple[Family, ...] = (
    Family(
        stem="critical_path_seconds_total",
        kind="counter",
        labels=("model_name", "anchor", "segment", "stage"),
        unit="seconds",
        help="What the time to the first packet, and to the end, of requests went to: the segments "
        "of each touch, so over all of them they sum to that time.",
        event="omni_request_finished",
        formula="the seconds of each segment of first_packet_path and critical_path",
        known={
            "anchor": ("first_packet", "end"),
            "segment": ("frontend", "queue", "execute", "transfer", "delivery", "unknown"),
        },
    ),
)
