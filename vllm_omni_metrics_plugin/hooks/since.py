"""With which version of this package each hook came, and each field of its event."""

from __future__ import annotations

from vllm_omni_metrics_plugin.hooks import specs

#: Fields that came after the hook whose event has them, by the hook's and the field's name.
NEWER_FIELDS: dict[tuple[str, str], str] = {
    ("omni_replica_joined", "makes"): "0.2",
    ("omni_replica_joined", "feeds"): "0.2",
    ("omni_replica_left", "reason"): "0.2",
    ("omni_request_arrived", "modalities"): "0.2",
    ("omni_request_arrived", "endpoint"): "0.2",
    ("omni_request_arrived", "transport"): "0.2",
    ("omni_request_arrived", "headers"): "0.2",
    ("omni_stage_submitted", "model_name"): "0.2",
    ("omni_stage_submitted", "first"): "0.2",
    ("omni_stage_submitted", "demands"): "0.2",
    ("omni_request_finished", "dispatched"): "0.2",
    ("omni_request_finished", "started"): "0.2",
    ("omni_request_finished", "during_input"): "0.2",
    ("omni_request_finished", "first_packet_path"): "0.2",
    ("omni_request_finished", "critical_path"): "0.2",
    ("omni_request_finished", "failure"): "0.2",
    ("omni_request_finished", "external_request_id"): "0.2",
    ("omni_request_finished", "endpoint"): "0.2",
    ("omni_request_finished", "transport"): "0.2",
    ("omni_request_finished", "arrived_at"): "0.2",
    ("omni_request_finished", "status"): "0.2",
    ("omni_request_finished", "stages"): "0.2",
    ("omni_request_finished", "packets"): "0.2",
    ("omni_request_finished", "audio"): "0.2",
    ("omni_request_finished", "images"): "0.2",
    ("omni_request_finished", "videos"): "0.2",
    ("omni_request_finished", "streams"): "0.2",
    ("omni_request_finished", "verdicts"): "0.2",
    ("omni_request_finished", "headers"): "0.2",
    ("omni_media_packet", "during_input"): "0.2",
    ("omni_audio_finished", "during_input"): "0.2",
    ("omni_request_arrived", "trace_id"): "0.2",
    ("omni_request_finished", "trace_id"): "0.2",
    ("omni_media_packet", "trace_id"): "0.2",
    ("omni_transfer_sent", "request_id"): "0.2",
    ("omni_transfer_received", "request_id"): "0.2",
}


def since(hook: str, field: str | None = None) -> str:
    """The version with which ``hook``, or this field of its event, came: ``0.1`` for example.

    Raises AttributeError for a hook that does not exist; the field is taken as it is.
    """
    came: str = getattr(getattr(specs, hook), specs.SINCE)
    return came if field is None else NEWER_FIELDS.get((hook, field), came)
