"""Every metric family of the plugin, as data.

Exposition, documentation and tests derive from :data:`FAMILIES`; no metric name is written twice.
A family is published only with values that were measured. Where a value could not be had, the
family's row in ``metrics_missing_samples_total`` counts it.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import (
    MODEL,
    PREFIX,
    RTF,
    SECONDS,
    STAGE,
    WAIT_SECONDS,
    Family,
)
from vllm_omni_metrics_plugin.catalog.transfers import EDGE, TRANSFERS
from vllm_omni_metrics_plugin.catalog.visual import VISUAL

__all__ = ["BY_STEM", "EDGE", "FAMILIES", "MODEL", "PREFIX", "STAGE", "TRANSFERS", "Family"]

FAMILIES: tuple[Family, ...] = (
    Family(
        stem="num_requests_running",
        kind="gauge",
        labels=MODEL,
        unit="requests",
        help="Requests dispatched to a stage and not finished.",
        event="omni_stage_submitted",
        formula="+1 at a request's first stage submit, -1 at its end",
    ),
    Family(
        stem="num_requests_waiting",
        kind="gauge",
        labels=MODEL,
        unit="requests",
        help="Requests accepted and not yet dispatched to any stage.",
        event="omni_request_arrived",
        formula="+1 at arrival, -1 at the first stage submit or the end, whichever is first",
    ),
    Family(
        stem="requests_success_total",
        kind="counter",
        labels=("model_name", "finished_reason"),
        unit="requests",
        help="Every accepted request once, by how it ended; only stop and length are successes.",
        event="omni_request_finished",
        formula="+1 per request whose outcome is not 'rejected'",
    ),
    Family(
        stem="e2e_request_latency_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival to complete response of naturally finished requests (not abort, not error).",
        event="omni_request_finished",
        formula="end_to_end_seconds",
        buckets=SECONDS,
    ),
    Family(
        stem="request_queue_time_seconds",
        kind="histogram",
        labels=MODEL,
        unit="seconds",
        help="Arrival to the first stage submit of accepted requests that reached a stage.",
        event="omni_request_finished",
        formula="queue_seconds",
        buckets=WAIT_SECONDS,
    ),
    Family(
        stem="audio_ttfp_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="Arrival to the first audio packet that leaves the engine; streamed requests only.",
        event="omni_media_packet",
        formula="since_arrival_seconds of the packet with index 0, if streamed",
        buckets=WAIT_SECONDS,
    ),
    Family(
        stem="audio_duration_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="Length of the audio of a completed request.",
        event="omni_audio_finished",
        formula="frames / sample_rate",
        buckets=SECONDS,
    ),
    Family(
        stem="audio_rtf",
        kind="histogram",
        labels=STAGE,
        unit="ratio",
        help="Stage generation time over audio length; above 1 the listener hears gaps.",
        event="omni_audio_finished",
        formula="generation_seconds / duration_seconds",
        buckets=RTF,
    ),
    Family(
        stem="audio_frames_total",
        kind="counter",
        labels=STAGE,
        unit="samples per channel",
        help="Audio samples per channel that left the engine, aborted requests included.",
        event="omni_media_packet",
        formula="+ samples",
    ),
    *VISUAL,
    *TRANSFERS,
    Family(
        stem="stage_info",
        kind="gauge",
        labels=(*STAGE, "stage_name", "stage_type"),
        unit="1",
        help="Always 1; joins a stage number to its name and type.",
        event="omni_replica_joined",
        formula="1",
        aggregate="livemax",
    ),
    Family(
        stem="metrics_patch_info",
        kind="gauge",
        labels=("patch", "target", "status", "reason"),
        unit="1",
        help="Always 1; one per seam of the plugin, with what became of it in this engine.",
        event="omni_patch_reported",
        formula="1",
        aggregate="livemax",
    ),
    Family(
        stem="metrics_missing_samples_total",
        kind="counter",
        labels=("family", "reason"),
        unit="samples",
        help="Samples that a family should have had and that could not be measured.",
        event="omni_audio_finished",
        formula="+1 per family and reason",
    ),
    Family(
        stem="metrics_hook_errors_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="errors",
        help="Faults of hook implementations; none of them reached the engine.",
        event="(the dispatcher itself)",
        formula="+1 per exception, recursion and coroutine returned",
    ),
    Family(
        stem="metrics_hook_calls_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="calls",
        help="Calls of hook implementations, those included that wait in a slow one's queue.",
        event="(the dispatcher itself)",
        formula="+1 per event and implementation",
    ),
    Family(
        stem="metrics_hook_dropped_events_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="events",
        help="Events that a slow hook implementation lost, as its queue was full.",
        event="(the dispatcher itself)",
        formula="+1 per event and implementation",
    ),
    Family(
        stem="metrics_hook_listening",
        kind="gauge",
        labels=("plugin", "hook"),
        unit="processes",
        help="Server processes that call the implementation; 0 once it is switched off or gone.",
        event="(the dispatcher itself)",
        formula="1 while it is registered and not switched off",
    ),
    Family(
        stem="metrics_dropped_events_total",
        kind="counter",
        labels=("reason",),
        unit="events",
        help="Events of the stage engines' processes that did not arrive in the server.",
        event="omni_events_dropped",
        formula="+ count",
    ),
)

BY_STEM: dict[str, Family] = {family.stem: family for family in FAMILIES}
