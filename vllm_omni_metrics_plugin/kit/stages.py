"""The dashboard of stages: queues, work, transfers and the engines, by stage and replica."""

from __future__ import annotations

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.kit import promql
from vllm_omni_metrics_plugin.kit.panels import (
    Dashboard,
    Panel,
    Row,
    Target,
    legend,
    level,
    quantiles,
    rates,
)
from vllm_omni_metrics_plugin.kit.promql import mean, metric, per_second, rate, total

_REPLICA = ("stage", "replica")
_EDGE = catalog.EDGE[1:]
_ARROW = "{{from_stage}}/{{from_replica}} to {{to_stage}}/{{to_replica}}"
_AT = (0.9,)


def _named(expression: str) -> str:
    """With labels that name both ends of an edge."""
    for end in ("from", "to"):
        expression = f'label_join({expression}, "{end}", "/", "{end}_stage", "{end}_replica")'
    return expression


_QUEUES = (
    level(
        "Which stage is which",
        "stage_info",
        "short",
        ("stage", "stage_name", "stage_type"),
        "count",
        "table",
        column="replicas",
    ),
    level("Executing", "stage_requests_running", "short", _REPLICA, form="stacked"),
    level("Waiting", "stage_requests_waiting", "short", _REPLICA, form="stacked"),
    quantiles("Queue", "stage_queue_time_seconds", "s", _REPLICA, _AT),
    quantiles("Wait for input", "stage_input_wait_seconds", "s", _REPLICA, _AT),
    level("Backlog", "stage_backlog_seconds", "s", _REPLICA),
)
_WORK = (
    Panel(
        "Busy",
        "percentunit",
        "stage_busy_seconds_total",
        (
            Target(
                total(rate(metric("stage_busy_seconds_total")), _REPLICA, "avg"), legend(_REPLICA)
            ),
        ),
        note="As a share of the time; a stage that batches is at 100 % with one request.",
    ),
    quantiles("Executing", "stage_execute_time_seconds", "s", _REPLICA, _AT),
    quantiles("Submit to last output", "stage_generation_time_seconds", "s", _REPLICA, _AT),
    rates("Tokens made", "generation_tokens_total", "short", _REPLICA),
    rates("Tokens of prompts", "prompt_tokens_total", "short", _REPLICA),
)
_TRANSFERS = (
    Panel(
        "Payloads per second, from row to column",
        "short",
        "transfer_size_bytes",
        (Target(_named(per_second("transfer_size_bytes_count", _EDGE)), _ARROW),),
        "matrix",
        "A row for each sender, a column for each receiver, as stage/replica.",
    ),
    Panel(
        "Bytes by edge",
        "Bps",
        "transfer_size_bytes",
        (Target(per_second("transfer_size_bytes_sum", _EDGE), _ARROW),),
        "stacked",
    ),
    Panel(
        "Mean size by edge",
        "bytes",
        "transfer_size_bytes",
        (Target(mean("transfer_size_bytes", _EDGE), _ARROW),),
    ),
    *(
        Panel(
            title,
            "ms",
            stem,
            (Target(promql.quantile(0.9, stem, _EDGE), _ARROW),),
        )
        for title, stem in (
            ("Sender's part, p90", "transfer_tx_time_ms"),
            ("In flight, p90", "transfer_in_flight_time_ms"),
            ("Receiver's part, p90", "transfer_rx_decode_time_ms"),
        )
    ),
    Panel(
        "Payloads lost, per second",
        "short",
        "transfer_failures_total",
        (
            Target(
                per_second(
                    "transfer_failures_total", ("from_stage", "to_stage", "operation", "reason")
                ),
                "{{from_stage}} to {{to_stage}}: {{operation}} {{reason}}",
            ),
        ),
    ),
    quantiles("KV cache held", "kv_wait_seconds", "s", (*_REPLICA, "connector_type"), _AT),
)
_ENGINES = (
    level("Running in the engine", "vllm:num_requests_running", "short", _REPLICA),
    level("Waiting in the engine", "vllm:num_requests_waiting", "short", _REPLICA),
    level("KV cache in use", "vllm:kv_cache_usage_perc", "percentunit", _REPLICA, "max"),
)

STAGES = Dashboard(
    "stages",
    "vLLM-Omni / Stages",
    "Queues, work and transfers by stage and replica, and the engines' own gauges.",
    (
        Row("Queues", _QUEUES),
        Row("Work", _WORK),
        Row("Transfers", _TRANSFERS),
        Row("Engines", _ENGINES),
    ),
)
