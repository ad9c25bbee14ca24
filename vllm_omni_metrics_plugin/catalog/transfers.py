"""The families of what moves between stages."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.buckets import BYTES, HOP_MILLISECONDS, WAIT_SECONDS
from vllm_omni_metrics_plugin.catalog.family import EDGE, STAGE, Family

TRANSFERS: tuple[Family, ...] = (
    Family(
        stem="transfer_size_bytes",
        kind="histogram",
        labels=EDGE,
        unit="bytes",
        help="Payload of one physical hop between stages, as serialized.",
        event="omni_transfer_sent",
        formula="size_bytes",
        buckets=BYTES,
        missing=("never_received", "unknown_edge"),
    ),
    Family(
        stem="transfer_tx_time_ms",
        kind="histogram",
        labels=EDGE,
        unit="milliseconds",
        help="Sender's part of a hop: serializing and handing over to the connector.",
        event="omni_transfer_sent",
        formula="1000 * duration_seconds",
        buckets=HOP_MILLISECONDS,
        missing=("never_received", "unknown_edge"),
    ),
    Family(
        stem="transfer_rx_decode_time_ms",
        kind="histogram",
        labels=EDGE,
        unit="milliseconds",
        help="Receiver's part of a hop: the get that succeeded, receiving and decoding.",
        event="omni_transfer_received",
        formula="1000 * duration_seconds",
        buckets=HOP_MILLISECONDS,
        missing=("unknown_sender", "unknown_edge"),
    ),
    Family(
        stem="transfer_in_flight_time_ms",
        kind="histogram",
        labels=EDGE,
        unit="milliseconds",
        help="From the sender's end to the receiver's beginning of a hop; same host only.",
        event="omni_transfer_received",
        formula="1000 * in_flight_seconds",
        buckets=HOP_MILLISECONDS,
        missing=("unknown_sender", "unknown_edge", "other_host"),
    ),
    Family(
        stem="kv_wait_seconds",
        kind="histogram",
        labels=(*STAGE, "connector_type"),
        unit="seconds",
        help="How long a stage held a KV cache that was complete until the connector had taken it.",
        event="omni_kv_waited",
        formula="wait_seconds",
        buckets=WAIT_SECONDS,
        missing=("unknown_holder",),
    ),
    Family(
        stem="transfer_failures_total",
        kind="counter",
        labels=("model_name", "from_stage", "to_stage", "operation", "replica", "reason"),
        unit="payloads",
        help="Payloads that never came as a connector failed; replica is the failing side's.",
        event="omni_transfer_failed",
        formula="+1",
        known={"operation": ("send",), "reason": ("refused",)},
    ),
)
