"""The families of the pipeline and of the plugin about itself."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.family import PLUGIN, STAGE, Family

OWN: tuple[Family, ...] = (
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
        help="Always 1; one per patch of the plugin, with what became of it in this engine.",
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
        stem="metrics_internal_errors_total",
        kind="counter",
        labels=("place",),
        unit="errors",
        help="Errors of the plugin's own code, by where they ended; none reached the engine.",
        event=PLUGIN,
        formula="+1 per exception",
    ),
    Family(
        stem="metrics_events_total",
        kind="counter",
        labels=("hook",),
        unit="events",
        help="Events that reached the exporter, of the hooks by which the doctor judges a server.",
        event=PLUGIN,
        formula="+1 per event",
        known={
            "hook": (
                "omni_request_arrived",
                *("omni_media_packet", "omni_audio_finished"),
                *("omni_image_finished", "omni_video_finished"),
                *("omni_stage_finished", "omni_request_finished"),
            )
        },
    ),
    Family(
        stem="metrics_hook_errors_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="errors",
        help="Faults of hook implementations; none of them reached the engine.",
        event=PLUGIN,
        formula="+1 per exception, recursion and coroutine returned",
    ),
    Family(
        stem="metrics_hook_calls_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="calls",
        help="Calls of hook implementations, those included that wait in a slow one's queue.",
        event=PLUGIN,
        formula="+1 per event and implementation",
    ),
    Family(
        stem="metrics_hook_dropped_events_total",
        kind="counter",
        labels=("plugin", "hook"),
        unit="events",
        help="Events that a slow hook implementation lost, as its queue was full.",
        event=PLUGIN,
        formula="+1 per event and implementation",
    ),
    Family(
        stem="metrics_held_series_total",
        kind="counter",
        labels=("plugin", "family", "label"),
        unit="calls",
        help="Calls for a new series of a hook plugin's family that has 2,000; they share one.",
        event=PLUGIN,
        formula="+1 per call; label is the one with the most values",
    ),
    Family(
        stem="metrics_spans_dropped_total",
        kind="counter",
        labels=("reason",),
        unit="spans",
        help="Spans of requests' traces that did not get to the collector.",
        event=PLUGIN,
        formula="+1 per span; per request whose trace was not begun, for too_many_requests",
        known={"reason": ("queue_full", "export_failed", "too_many_requests")},
    ),
    Family(
        stem="metrics_hook_listening",
        kind="gauge",
        labels=("plugin", "hook"),
        unit="processes",
        help="Server processes that call the implementation; 0 once it is switched off or gone.",
        event=PLUGIN,
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
        known={
            "reason": (
                *("queue_full", "lost", "unsendable", "garbage", "invalid", "oversized"),
                "not_listening",
            )
        },
    ),
)
