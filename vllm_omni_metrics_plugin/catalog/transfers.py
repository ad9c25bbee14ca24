"""The families of what moves between stages."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import Family

EDGE = ("model_name", "from_stage", "from_replica", "to_stage", "to_replica")

#: 1 KiB to 4 GiB.
BYTES = tuple(float(4**power) for power in range(5, 17))
#: 10 us to 10 s, in milliseconds.
HOP_MILLISECONDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
    *(100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0),
)

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
    ),
    Family(
        stem="transfer_tx_time_ms",
        kind="histogram",
        labels=EDGE,
        unit="milliseconds",
        help="Sender's part of a hop: serializing and handing over to the connector.",
        event="omni_transfer_sent",
        formula="1000 * seconds",
        buckets=HOP_MILLISECONDS,
    ),
    Family(
        stem="transfer_rx_decode_time_ms",
        kind="histogram",
        labels=EDGE,
        unit="milliseconds",
        help="Receiver's part of a hop: the get that succeeded, receiving and decoding.",
        event="omni_transfer_received",
        formula="1000 * seconds",
        buckets=HOP_MILLISECONDS,
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
    ),
    Family(
        stem="transfer_failures_total",
        kind="counter",
        labels=("model_name", "from_stage", "to_stage", "operation", "replica", "reason"),
        unit="payloads",
        help="Payloads that a connector could not send or receive; replica is the failing side's.",
        event="omni_transfer_failed",
        formula="+1",
    ),
)
