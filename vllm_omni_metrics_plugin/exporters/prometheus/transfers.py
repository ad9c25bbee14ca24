"""The transfer families' samples, by the edge that a payload went over."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    EventsDropped,
    TransferFailed,
    TransferReceived,
    TransferSent,
    hookimpl,
)

Edge = tuple[str, int, int, int, int]


class EdgeChildren:
    """The label children of one edge's families, bound once."""

    __slots__ = ("in_flight", "receive", "send", "size")

    def __init__(self, families: dict[str, Any], labels: tuple[str, ...]) -> None:
        self.size = families["transfer_size_bytes"].labels(*labels)
        self.send = families["transfer_tx_time_ms"].labels(*labels)
        self.receive = families["transfer_rx_decode_time_ms"].labels(*labels)
        self.in_flight = families["transfer_in_flight_time_ms"].labels(*labels)


class TransferSamples:
    """What the Prometheus exporter makes of transfers."""

    _families: dict[str, Any]

    def _bind_transfers(self) -> None:
        self._edges: dict[Edge, EdgeChildren] = {}

    def _missing(self, stem: str, reason: str) -> None:
        raise NotImplementedError

    @hookimpl
    def omni_transfer_sent(self, event: TransferSent) -> None:
        children = self._edge_children(event)
        if children is None:
            reason = "never_received" if event.to_replica is None else "unknown_edge"
            self._missing("transfer_size_bytes", reason)
            self._missing("transfer_tx_time_ms", reason)
            return
        children.size.observe(event.size_bytes)
        children.send.observe(1000.0 * event.duration_seconds)

    @hookimpl
    def omni_transfer_received(self, event: TransferReceived) -> None:
        children = self._edge_children(event)
        if children is None:
            reason = "unknown_sender" if event.from_replica is None else "unknown_edge"
            self._missing("transfer_rx_decode_time_ms", reason)
            self._missing("transfer_in_flight_time_ms", reason)
            return
        children.receive.observe(1000.0 * event.duration_seconds)
        if event.in_flight_seconds is None:
            self._missing("transfer_in_flight_time_ms", "other_host")
        else:
            children.in_flight.observe(1000.0 * event.in_flight_seconds)

    @hookimpl
    def omni_transfer_failed(self, event: TransferFailed) -> None:
        self._families["transfer_failures_total"].labels(
            event.model_name or "",
            str(event.from_stage),
            str(event.to_stage),
            event.operation,
            "" if event.replica is None else str(event.replica),
            event.reason,
        ).inc()

    @hookimpl
    def omni_events_dropped(self, event: EventsDropped) -> None:
        self._families["metrics_dropped_events_total"].labels(event.reason).inc(event.count)

    def _edge_children(self, event: TransferSent | TransferReceived) -> EdgeChildren | None:
        """None unless it is known who sent to whom."""
        if event.model_name is None or event.from_replica is None or event.to_replica is None:
            return None
        edge = (
            event.model_name,
            event.from_stage,
            event.from_replica,
            event.to_stage,
            event.to_replica,
        )
        children = self._edges.get(edge)
        if children is None:
            children = self._edges[edge] = EdgeChildren(self._families, tuple(map(str, edge)))
        return children
