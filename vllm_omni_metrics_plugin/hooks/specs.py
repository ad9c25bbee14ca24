"""Every hook: one per event, one argument.

Implementations are called in the thread where the event happens (the server's event loop or its
orchestrator thread), so they must be quick, must not block and must be safe to call from both.
"""

from __future__ import annotations

from pluggy import HookimplMarker, HookspecMarker

from vllm_omni_metrics_plugin.hooks import events

PROJECT = "vllm_omni_metrics_plugin"

hookspec = HookspecMarker(PROJECT)
hookimpl = HookimplMarker(PROJECT)


@hookspec(historic=True)
def omni_configured(event: events.Configured) -> None:
    """The plugin is ready in this process. Also told to listeners that register later."""


@hookspec(historic=True)
def omni_patch_reported(event: events.PatchReported) -> None:
    """A seam was applied, deferred, skipped or failed. Also told to listeners that come later."""


@hookspec
def omni_replica_joined(event: events.ReplicaJoined) -> None:
    """A replica became a member of its stage."""


@hookspec
def omni_replica_left(event: events.ReplicaLeft) -> None:
    """A replica left its stage, or died."""


@hookspec
def omni_engine_stats(event: events.EngineStats) -> None:
    """A stage engine's statistics were recorded, with every batch."""


@hookspec
def omni_request_arrived(event: events.RequestArrived) -> None:
    """The client-facing engine took a request in."""


@hookspec
def omni_stage_submitted(event: events.StageSubmitted) -> None:
    """A stage replica was given the request."""


@hookspec
def omni_stage_finished(event: events.StageFinished) -> None:
    """A stage replica finished the request."""


@hookspec
def omni_media_packet(event: events.MediaPacket) -> None:
    """A packet of media leaves the engine for the client."""


@hookspec
def omni_audio_finished(event: events.AudioFinished) -> None:
    """A request's audio output is complete."""


@hookspec
def omni_image_finished(event: events.ImageFinished) -> None:
    """A request's images are complete."""


@hookspec
def omni_video_finished(event: events.VideoFinished) -> None:
    """A request's videos are complete, and their frame rate is known if it ever will be."""


@hookspec
def omni_request_finished(event: events.RequestFinished) -> None:
    """A request ended; exactly once per arrived request."""


@hookspec
def omni_transfer_sent(event: events.TransferSent) -> None:
    """A payload left one stage for the next."""


@hookspec
def omni_transfer_received(event: events.TransferReceived) -> None:
    """A payload arrived at a stage."""


@hookspec
def omni_transfer_failed(event: events.TransferFailed) -> None:
    """A payload could not be sent or received."""


@hookspec
def omni_events_dropped(event: events.EventsDropped) -> None:
    """Events of the stage engines' processes did not arrive in the server."""
