"""The samples of transfers, by the edge that a payload went over."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    EventsDropped,
    KvWaited,
    ReplicaJoined,
    ReplicaLeft,
    TransferFailed,
    TransferReceived,
    TransferSent,
    hookimpl,
)

Edge = tuple[str, int, int, int, int]

#: So many edges stand at 0 before anything went over them; 8 replicas before 8 have 64. What is
#: beyond is born with its first payload, as most edges of a pipeline that large may never be used.
MOST_EDGES_AT_0 = 256

_HOPS = (
    *("transfer_size_bytes", "transfer_tx_time_ms"),
    *("transfer_rx_decode_time_ms", "transfer_in_flight_time_ms"),
)
_DROPPED = catalog.BY_STEM["metrics_dropped_events_total"].known["reason"]
_FAILURES = catalog.BY_STEM["transfer_failures_total"].known


class EdgeChildren:
    """The label children of one edge's families, bound once."""

    __slots__ = ("in_flight", "receive", "send", "size")

    def __init__(self, families: Families, labels: tuple[str, ...]) -> None:
        self.size = families["transfer_size_bytes"].labels(*labels)
        self.send = families["transfer_tx_time_ms"].labels(*labels)
        self.receive = families["transfer_rx_decode_time_ms"].labels(*labels)
        self.in_flight = families["transfer_in_flight_time_ms"].labels(*labels)


class TransferSamples:
    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._edges: dict[Edge, EdgeChildren] = {}
        #: The replicas that are there, by model, stage and number, with the stages they feed.
        self._replicas: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def expect(self, event: ReplicaJoined) -> None:
        """Have the series stand at 0 of the edges that a replica completes."""
        self._replicas[event.model_name, event.stage, event.replica] = event.feeds
        for reason in _DROPPED:
            self._families.expect("metrics_dropped_events_total", reason)
        if event.feeds:
            self._families.expect_missing(*_HOPS)
        for edge in self._edges_of(event):
            if edge not in self._edges and len(self._edges) < MOST_EDGES_AT_0:
                self._bind(edge)
                self._expect_failures(edge)

    def forget(self, event: ReplicaLeft) -> None:
        """Replicas that join later have no edge with one that left."""
        self._replicas.pop((event.model_name, event.stage, event.replica), None)

    @hookimpl
    def omni_transfer_sent(self, event: TransferSent) -> None:
        children = self._edge_children(event)
        if children is None:
            reason = "never_received" if event.to_replica is None else "unknown_edge"
            self._missing(reason, "transfer_size_bytes", "transfer_tx_time_ms")
            return
        children.size.observe(event.size_bytes)
        children.send.observe(1000.0 * event.duration_seconds)

    @hookimpl
    def omni_transfer_received(self, event: TransferReceived) -> None:
        children = self._edge_children(event)
        if children is None:
            reason = "unknown_sender" if event.from_replica is None else "unknown_edge"
            self._missing(reason, "transfer_rx_decode_time_ms", "transfer_in_flight_time_ms")
            return
        children.receive.observe(1000.0 * event.duration_seconds)
        if event.in_flight_seconds is None:
            self._missing("other_host", "transfer_in_flight_time_ms")
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
    def omni_kv_waited(self, event: KvWaited) -> None:
        if event.model_name is None or event.replica is None:
            self._missing("unknown_holder", "kv_wait_seconds")
            return
        holder = (event.model_name, str(event.stage), str(event.replica))
        self._families["kv_wait_seconds"].labels(*holder, event.connector).observe(
            event.wait_seconds
        )

    @hookimpl
    def omni_events_dropped(self, event: EventsDropped) -> None:
        self._families["metrics_dropped_events_total"].labels(event.reason).inc(event.count)

    def _edges_of(self, joined: ReplicaJoined) -> Iterator[Edge]:
        model_name, stage, replica = joined.model_name, joined.stage, joined.replica
        for (model, other, number), feeds in list(self._replicas.items()):
            if model == model_name and other in joined.feeds:
                yield model, stage, replica, other, number
            if model == model_name and stage in feeds:
                yield model, other, number, stage, replica

    def _expect_failures(self, edge: Edge) -> None:
        """Those that are known by name; the classes of exceptions are not."""
        model_name, from_stage, from_replica, to_stage, to_replica = edge
        for operation in _FAILURES["operation"]:
            side = from_replica if operation == "send" else to_replica
            for reason in _FAILURES["reason"]:
                about = (from_stage, to_stage, operation, side, reason)
                self._families.expect("transfer_failures_total", model_name, *map(str, about))

    def _bind(self, edge: Edge) -> EdgeChildren:
        children = self._edges[edge] = EdgeChildren(self._families, tuple(map(str, edge)))
        return children

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
        return self._bind(edge) if children is None else children
