"""The families of requests, whatever they ask for."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.buckets import SECONDS, WAIT_SECONDS
from vllm_omni_metrics_plugin.catalog.family import MODEL, Family

#: Why requests fail, and the words for it; the first ones are native.
FAILURES = (
    *("client_disconnect", "client_abort", "stage_error", "dead_replica", "invalid_request"),
    *("queue_full", "timeout", "endpoint_error", "no_output", "other"),
)

REQUESTS: tuple[Family, ...] = (
    Family(
        stem="requests_success_total",
        kind="counter",
        labels=("model_name", "finished_reason"),
        unit="requests",
        help="Every request that reached the engine once, by what its client was answered; only "
        "stop and length are successes.",
        event="omni_request_finished",
        formula="+1 per request, when its response is over",
        known={"finished_reason": ("stop", "length", "abort", "error", "rejected")},
    ),
    Family(
        stem="requests_failed_total",
        kind="counter",
        labels=("model_name", "reason"),
        unit="requests",
        help="Requests that ended by abort, error or rejected, once each, by the first cause.",
        event="omni_request_finished",
        formula="+1 per request with a failure; other for a word that is not known",
        known={"reason": FAILURES},
    ),
    Family(
        stem="e2e_request_latency_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival to complete response of complete requests (not abort, error or rejected).",
        event="omni_request_finished",
        formula="end_to_end_seconds",
        buckets=SECONDS,
        missing=("unknown_arrival", "during_input"),
    ),
    Family(
        stem="request_queue_time_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival to the first start in any stage, of accepted requests that started.",
        event="omni_request_finished",
        formula="queue_seconds",
        buckets=WAIT_SECONDS,
        missing=("unknown_arrival", "unknown_start"),
    ),
)
