"""Alert rules, each with what whoever is woken up by it wants to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.rules import REASONS
from vllm_omni_metrics_plugin.kit.promql import series, total
from vllm_omni_metrics_plugin.kit.rules import (
    ERROR_RATIO,
    FAST,
    SLOW,
    STALL_RATIO,
    bad_ratio,
)

Severity = Literal["page", "ticket"]

#: Reasons for missing samples that are no fault of the measurement: what a request had not.
EXCUSED = sorted(reason for reason, (severity, _) in REASONS.items() if severity == "note")
_MODEL = ("job", "model_name")
#: A low target has a budget that cannot burn 14 times too fast.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Alert:
    name: str
    severity: Severity
    expression: str
    #: How long it has to be true before it fires.
    lasting: str
    #: One line; ``{{ $labels.x }}`` and ``{{ $value }}`` as Prometheus fills them in.
    summary: str
    meaning: str
    first_query: str
    cause: str
    cure: str


def _grown(name: str, window: str, by: Sequence[str], **matchers: str) -> str:
    return total(f"increase({series(name, **matchers)}[{window}])", by)


def _any(name: str, window: str, by: Sequence[str]) -> str:
    """Whether a counter grew, or a series was born with a value: it has no increase."""
    now = series(name)
    known = f"on (job, instance) up offset {window}"
    born = total(f"{now} unless {now} offset {window} and {known}", by)
    return f"{_grown(name, window, by)} > 0 or {born} > 0"


def _burn(factor: float, windows: tuple[str, str]) -> str:
    """True while both windows use up the budget so many times too fast, or nearly all is bad."""
    target = total(series("slo_target_ratio"), ("job", "objective"), "max")
    limit = f"clamp_max({factor} * (1 - {target}), {_NEARLY_ALL})"
    return " and ".join(
        f"{bad_ratio(window)} > on (job, objective) group_left () {limit}"
        for window in reversed(windows)
    )


_OPEN = " + ".join(
    total(series(f"num_requests_{state}"), _MODEL) for state in ("running", "waiting")
)
_EDGE = ("job", *catalog.EDGE)
_RTF = total(f"rate({series('audio_rtf_bucket')}[10m])", ("le", "stage", "replica"))
_BROKEN_LIMITS = _grown("slo_violations_total", "1h", ("objective", "limit"))

ALERTS: tuple[Alert, ...] = (
    Alert(
        "OmniObjectiveBurnsFast",
        "page",
        _burn(14.4, FAST),
        "2m",
        "{{ $labels.model_name }} breaks the objective {{ $labels.objective }}: "
        "{{ $value | humanizePercentage }} of the requests of the last hour are bad",
        "Of the requests of the last hour and of the last 5 minutes, so many are bad that a "
        "month's budget of the objective would be gone in two days.",
        _BROKEN_LIMITS,
        "The limit that is broken most says where to look: a first packet that is late is a queue "
        "or a slow first stage, an underrun is a slow last stage, `error` is a stage that fails.",
        "Add replicas of the stage that is busiest (dashboard Stages), or take traffic away; if it "
        "began with a rollout, roll back.",
    ),
    Alert(
        "OmniObjectiveBurnsSlowly",
        "ticket",
        _burn(6, SLOW),
        "15m",
        "{{ $labels.model_name }} uses up the budget of {{ $labels.objective }}: "
        "{{ $value | humanizePercentage }} of the requests of 6 hours are bad",
        "Of the requests of the last 6 hours and of the last 30 minutes, so many are bad that a "
        "month's budget of the objective would be gone in five days.",
        _BROKEN_LIMITS,
        "As of OmniObjectiveBurnsFast, at a rate that nobody has to get up for.",
        "As of OmniObjectiveBurnsFast, in working hours; or the objective is not what you promise.",
    ),
    Alert(
        "OmniSpeechStalls",
        "page",
        f"{STALL_RATIO} > 0.02",
        "5m",
        "Listeners of {{ $labels.model_name }} hear {{ $value | humanizePercentage }} of silence "
        "in what they play (buffer of {{ $labels.player }} s)",
        "For each 100 seconds of speech, listeners with that buffer hear over 2 seconds of silence "
        "in the middle of it.",
        f"histogram_quantile(0.9, {_RTF})",
        "A real-time factor over 1: the stages make speech more slowly than it plays, mostly as "
        "too many requests share a replica.",
        "Fewer requests at once for each replica, or more replicas of the stage with the highest "
        "real-time factor.",
    ),
    Alert(
        "OmniRequestsFail",
        "page",
        f"{ERROR_RATIO} > 0.05",
        "0m",
        "{{ $value | humanizePercentage }} of the requests of {{ $labels.model_name }} fail",
        "Over 5 % of the requests of the last 10 minutes ended with an error of the server. On a "
        "quiet model that is the first one.",
        _grown("requests_failed_total", "10m", ("model_name", "reason")),
        "The reason says it: `stage_error` and `dead_replica` are an engine, `endpoint_error` is "
        "the response after it, `queue_full` and `timeout` are load.",
        "The server's log has the traceback of the first one. A dead replica is OmniReplicaGone as "
        "well.",
    ),
    Alert(
        "OmniReplicaGone",
        "page",
        f"(max_over_time({series('stage_info')}[1h]) unless "
        f"{series('stage_info')}) and on (job, instance) up == 1",
        "1m",
        "Replica {{ $labels.replica }} of stage {{ $labels.stage }} ({{ $labels.stage_name }}) of "
        "{{ $labels.model_name }} has left {{ $labels.instance }}",
        "A replica of a stage left or died within the last hour, and its server goes on without "
        "it. After an hour the alert ends by itself, whether the replica is back or not.",
        total(series("stage_info"), ("instance", "model_name", "stage"), "count"),
        "Its process was killed (out of memory, a fault of the device), or somebody took it away "
        "on purpose.",
        "The log of the server says when it lost the replica. Start it again, or restart the "
        "server.",
    ),
    Alert(
        "OmniNothingFinishes",
        "page",
        f"{_OPEN} > 0 and {_grown('requests_success_total', '10m', _MODEL)} == 0",
        "10m",
        "{{ $value }} requests of {{ $labels.model_name }} are open, and none ends",
        "Requests have been open for 10 minutes in which not one ended, in whatever way.",
        total(series("stage_requests_running"), ("stage", "replica")),
        "A stage hangs, or a single request takes that long (videos do: then raise the 10 "
        "minutes).",
        "Look at the stage where requests execute and tokens or steps no longer grow; restart its "
        "replica.",
    ),
    Alert(
        "OmniBacklog",
        "page",
        f"{total(series('backlog_seconds'), _MODEL, 'max')} > 60",
        "5m",
        "{{ $labels.model_name }} needs {{ $value | humanizeDuration }} for what is open",
        "If nothing more came, it would take over a minute to be done with what is open.",
        total(series("stage_backlog_seconds"), ("stage", "replica")),
        "More comes than the slowest stage can do.",
        "Add replicas of the stage with the largest backlog; the autoscaler's files do it by "
        "themselves.",
    ),
    Alert(
        "OmniTransferStuck",
        "page",
        "histogram_quantile(0.9, "
        + total(
            f"rate({series('transfer_in_flight_time_ms_bucket')}[10m])",
            ("le", *_EDGE),
        )
        + ") > 1000",
        "5m",
        "Payloads from stage {{ $labels.from_stage }} to {{ $labels.to_stage }} of "
        "{{ $labels.model_name }} wait over a second to be taken",
        "A tenth of the payloads from one replica to another lie for over a second before the "
        "receiver takes them.",
        total(series("stage_requests_waiting"), ("stage", "replica")),
        "The receiving stage is overloaded, or its process is starved of processor time.",
        "Add replicas of the receiving stage; look at the processor time of its process.",
    ),
    Alert(
        "OmniTransferLost",
        "page",
        _any("transfer_failures_total", "10m", (*_MODEL, "from_stage", "to_stage", "reason")),
        "0m",
        "Payloads from stage {{ $labels.from_stage }} to {{ $labels.to_stage }} of "
        "{{ $labels.model_name }} got lost ({{ $labels.reason }})",
        "A connector failed for good: what one stage made never came to the next, and the request "
        "hangs or fails.",
        _grown("transfer_failures_total", "10m", ("from_stage", "to_stage", "operation", "reason")),
        "Shared memory is full (`/dev/shm`), a connection between hosts broke, or the other side "
        "is gone.",
        "Free or enlarge shared memory; look at the network between the hosts; restart the side "
        "that is gone.",
    ),
    Alert(
        "OmniUnmeasured",
        "ticket",
        _grown(
            "metrics_missing_samples_total",
            "1h",
            ("job", "family"),
            reason=f'!~"{"|".join(EXCUSED)}"',
        )
        + " > on (job) group_left () (0.05 * "
        + _grown("metrics_events_total", "1h", ("job",), hook='="omni_request_finished"')
        + ")",
        "15m",
        "{{ $labels.family }} lacks {{ $value | humanize }} samples of the last hour",
        "A family lacks samples for over 5 % of the requests of the last hour, for a reason that "
        "is the measurement's.",
        _grown("metrics_missing_samples_total", "1h", ("family", "reason")),
        "Mostly an engine release that the plugin does not know: a patch was skipped, or an output "
        "has another form.",
        "`vllm-omni-metrics doctor --url` explains the reason; until then do not trust the family.",
    ),
    Alert(
        "OmniHookFails",
        "ticket",
        " or ".join(
            _any(f"metrics_hook_{what}_total", "15m", ("job", "plugin", "hook"))
            for what in ("errors", "dropped_events")
        ),
        "0m",
        "The hook plugin {{ $labels.plugin }} fails at {{ $labels.hook }}, or is too slow for it",
        "An implementation of a hook raised, or lost events as it is slow. No request is touched; "
        "what the plugin counts or writes has a gap.",
        total(series("metrics_hook_listening"), ("plugin", "hook")),
        "A fault of the plugin; after many in a row it is switched off.",
        "The server's log has the first traceback; mend the plugin, or leave it out with "
        "`VLLM_OMNI_METRICS_HOOKS`.",
    ),
    Alert(
        "OmniMetricsNotListening",
        "ticket",
        _grown("metrics_dropped_events_total", "15m", ("job",), reason='="not_listening"') + " > 0",
        "0m",
        "A server of {{ $labels.job }} does not hear its stage engines' events",
        "The server could not open the channel of the stage engines' events: transfers, starts and "
        "steps are missing.",
        _grown("metrics_dropped_events_total", "15m", ("reason",)),
        "The address of `VLLM_OMNI_METRICS_CHANNEL` is taken, or may not be used on this host.",
        "The log says why; `vllm-omni-metrics doctor` on the server's host tries the address.",
    ),
    Alert(
        "OmniCacheFull",
        "ticket",
        total(
            series("vllm:kv_cache_usage_perc"),
            ("job", "model_name", "stage", "replica"),
            "max",
        )
        + " > 0.95",
        "5m",
        "The KV cache of stage {{ $labels.stage }} of {{ $labels.model_name }} is full "
        "({{ $value | humanizePercentage }})",
        "A replica has had less than 5 % of its KV cache left for 5 minutes: requests wait, or are "
        "put off in the middle.",
        total(series("vllm:num_requests_waiting"), ("stage", "replica")),
        "More or longer requests at once than the cache holds.",
        "Fewer requests at once (`--max-num-seqs`), more memory for the cache, or more replicas.",
    ),
)
