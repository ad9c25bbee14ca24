"""The dashboard to begin with: traffic, outcomes, verdicts, and where the time goes."""

from __future__ import annotations

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
from vllm_omni_metrics_plugin.kit.promql import metric, per_second, ratio, total

_OUTCOMES = "requests_success_total"
_JUDGED = "slo_requests_total"
_PATH = "critical_path_seconds_total"
_PATCH = ("patch", "status", "reason", "target")
_TRAFFIC = (
    rates("Requests by outcome", _OUTCOMES, "reqps", ("finished_reason",)),
    Panel(
        "Open requests",
        "short",
        "num_requests_running",
        (
            Target(total(metric("num_requests_running")), "running"),
            Target(total(metric("num_requests_waiting")), "waiting"),
        ),
        "stacked",
        "Waiting are those that execute in no stage.",
    ),
    level("Longest wait now", "oldest_waiting_seconds", "s", ("model_name",), "max"),
    quantiles("End to end", "e2e_request_latency_seconds", "s"),
    quantiles("Wait for the first start", "request_queue_time_seconds", "s"),
    level(
        "Backlog",
        "backlog_seconds",
        "s",
        ("model_name",),
        "max",
        note="Nothing is shown before a stage has finished a request.",
    ),
)
_OUTCOME = (
    Panel(
        "Share of errors",
        "percentunit",
        _OUTCOMES,
        (
            Target(
                ratio(
                    per_second(_OUTCOMES, finished_reason='="error"'),
                    per_second(_OUTCOMES, finished_reason='!="rejected"'),
                ),
                "errors",
            ),
        ),
        "number",
        "Errors among all that were not answered with an HTTP 4xx.",
    ),
    rates("Why requests fail", "requests_failed_total", "reqps", ("reason",)),
    rates("Tokens", "generation_tokens_total", "short", ("stage",)),
)
_VERDICTS = (
    rates("Verdicts", _JUDGED, "reqps", ("objective", "verdict")),
    Panel(
        "Share of good requests",
        "percentunit",
        "slo_target_ratio",
        (
            Target(
                ratio(
                    per_second(_JUDGED, ("objective",), verdict='="good"'),
                    per_second(_JUDGED, ("objective",), verdict='=~"good|bad"'),
                ),
                legend(("objective",)),
            ),
            Target(
                total(metric("slo_target_ratio"), ("objective",), "max"),
                legend(("objective",), "target of"),
            ),
        ),
        note="Beside the target of each objective.",
    ),
    rates("What was broken", "slo_violations_total", "reqps", ("objective", "limit")),
)
_TIME = tuple(
    Panel(
        title,
        "percentunit",
        _PATH,
        (
            Target(
                promql.share_of(_PATH, ("segment", "stage"), anchor=f'="{anchor}"'),
                legend(("segment", "stage")),
            ),
        ),
        "stacked",
        "As shares of all requests' time, by segment and stage.",
        12,
    )
    for title, anchor in (
        ("Where the time to the end goes", "end"),
        ("Where the time to the first packet goes", "first_packet"),
    )
)
_PLUGIN = (
    rates("Events that were counted", "metrics_events_total", "short", ("hook",)),
    rates(
        "Samples that could not be measured",
        "metrics_missing_samples_total",
        "short",
        ("family", "reason"),
    ),
    Panel(
        "Dropped events and errors, per second",
        "short",
        "metrics_dropped_events_total",
        (
            Target(per_second("metrics_dropped_events_total", ("reason",)), "events: {{reason}}"),
            Target(per_second("metrics_internal_errors_total", ("place",)), "errors: {{place}}"),
            Target(per_second("metrics_spans_dropped_total", ("reason",)), "spans: {{reason}}"),
            Target(
                per_second("metrics_hook_errors_total", ("plugin", "hook")),
                "errors of {{plugin}}: {{hook}}",
            ),
            Target(
                per_second("metrics_hook_dropped_events_total", ("plugin", "hook")),
                "dropped by {{plugin}}: {{hook}}",
            ),
        ),
        note="Internal errors and those of hook implementations beside them.",
    ),
    Panel(
        "Hook plugins, per second",
        "short",
        "metrics_hook_calls_total",
        (
            Target(
                per_second("metrics_hook_calls_total", ("plugin", "hook")),
                "calls of {{plugin}}: {{hook}}",
            ),
            Target(
                per_second("metrics_held_series_total", ("plugin", "family", "label")),
                "held back of {{plugin}}: {{family}} by {{label}}",
            ),
        ),
        note="What is held back are series beyond a family's 2,000.",
    ),
    level(
        "Who listens",
        "metrics_hook_listening",
        "short",
        ("plugin", "hook"),
        form="table",
        note="What is built in is listed only once it failed.",
        column="listening",
    ),
    Panel(
        "Patches that are not applied",
        "short",
        "metrics_patch_info",
        (
            Target(
                total(metric("metrics_patch_info", status='!="applied"'), _PATCH, "max"),
                legend(_PATCH),
            ),
        ),
        "table",
        "The doctor says what each of them costs.",
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "vLLM-Omni / Overview",
    "Traffic, outcomes, verdicts by your objectives, and where the time goes.",
    (
        Row("Traffic", _TRAFFIC),
        Row("Outcomes", _OUTCOME),
        Row("Verdicts", _VERDICTS),
        Row("Where the time goes", _TIME),
        Row("Is it measured?", _PLUGIN),
    ),
)
