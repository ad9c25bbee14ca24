"""Every hook: one per event, one argument.

Implementations are called in the thread where the event happens (the server's event loop, its
orchestrator thread, the thread that receives events of other processes), so they must be quick
and safe to call from several threads; ``@hookimpl(slow=True)`` ones are called on a thread of their
own instead. What they return is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from pluggy import HookimplMarker, HookspecMarker

from vllm_omni_metrics_plugin.hooks import events

PROJECT = "vllm_omni_metrics_plugin"

#: Set on implementations that declare themselves slow.
SLOW = f"{PROJECT}_slow"
#: Set on hooks: the version with which each came.
SINCE = f"{PROJECT}_since"

Function = TypeVar("Function", bound=Callable[..., object])

_mark_spec = HookspecMarker(PROJECT)
_mark = HookimplMarker(PROJECT)


def hookspec(*, since: str, historic: bool = False) -> Callable[[Function], Function]:
    """Mark a function as a hook, which came with version ``since`` of this package.

    ``historic``: implementations that are registered later are called with its past events, too.
    """

    def mark(spec: Function) -> Function:
        setattr(spec, SINCE, since)
        return _mark_spec(spec, historic=historic)

    return mark


@overload
def hookimpl(function: Function, /) -> Function: ...


@overload
def hookimpl(
    *,
    slow: bool = ...,
    specname: str | None = ...,
    optionalhook: bool = ...,
    tryfirst: bool = ...,
    trylast: bool = ...,
) -> Callable[[Function], Function]: ...


def hookimpl(
    function: Function | None = None,
    /,
    *,
    slow: bool = False,
    specname: str | None = None,
    optionalhook: bool = False,
    tryfirst: bool = False,
    trylast: bool = False,
) -> Function | Callable[[Function], Function]:
    """Mark a function as the implementation of the hook whose name it has.

    ``slow``: call it on a thread of its own, behind a bounded queue; for whatever writes to disks
    or networks. ``specname``: the hook's name, where the function has another one.
    ``optionalhook``: do without it where this version has no such hook. ``tryfirst``, ``trylast``:
    before, after the other plugins' implementations.
    """

    def mark(implementation: Function) -> Function:
        _mark(
            implementation,
            specname=specname,
            optionalhook=optionalhook,
            tryfirst=tryfirst,
            trylast=trylast,
        )
        if slow:
            setattr(implementation, SLOW, True)
        return implementation

    return mark if function is None else mark(function)


@hookspec(since="0.1", historic=True)
def omni_configured(event: events.Configured) -> None:
    """The plugin is ready in this process. Implementations that register later are called, too."""


@hookspec(since="0.1", historic=True)
def omni_patch_reported(event: events.PatchReported) -> None:
    """A patch was applied, deferred, skipped or failed.

    Implementations that register later are called with what became of each, too.
    """


@hookspec(since="0.1")
def omni_replica_joined(event: events.ReplicaJoined) -> None:
    """A replica became a member of its stage."""


@hookspec(since="0.1")
def omni_replica_left(event: events.ReplicaLeft) -> None:
    """A replica left its stage, or died."""


@hookspec(since="0.1")
def omni_engine_stats(event: events.EngineStats) -> None:
    """A stage engine's statistics were recorded, with every batch."""


@hookspec(since="0.1")
def omni_request_arrived(event: events.RequestArrived) -> None:
    """The client-facing engine took a request in."""


@hookspec(since="0.1")
def omni_stage_submitted(event: events.StageSubmitted) -> None:
    """A stage replica was given the request."""


@hookspec(since="0.2")
def omni_stage_started(event: events.StageStarted) -> None:
    """A stage replica began to execute the request. In the server only."""


@hookspec(since="0.2")
def omni_stage_ended(event: events.StageEnded) -> None:
    """A stage replica executes the request no more. In the server only."""


@hookspec(since="0.1")
def omni_stage_finished(event: events.StageFinished) -> None:
    """A stage replica finished the request."""


@hookspec(since="0.1")
def omni_media_packet(event: events.MediaPacket) -> None:
    """A packet of media leaves the engine for the client."""


@hookspec(since="0.1")
def omni_audio_finished(event: events.AudioFinished) -> None:
    """A request's audio output is complete."""


@hookspec(since="0.2")
def omni_playback_stalled(event: events.PlaybackStalled) -> None:
    """A player of a stream ran dry, and its listener hears nothing; while it lasts."""


@hookspec(since="0.2")
def omni_stream_finished(event: events.StreamFinished) -> None:
    """A response with streamed audio is over, complete or not."""


@hookspec(since="0.1")
def omni_image_finished(event: events.ImageFinished) -> None:
    """A request's images are complete."""


@hookspec(since="0.1")
def omni_video_finished(event: events.VideoFinished) -> None:
    """A request's videos are complete, and their frame rate is known if it ever will be."""


@hookspec(since="0.1")
def omni_request_finished(event: events.RequestFinished) -> None:
    """A request ended; exactly once per arrived request."""


@hookspec(since="0.2")
def omni_request_judged(event: events.RequestJudged) -> None:
    """A request got its verdict, once for each objective that is about it, at its end."""


@hookspec(since="0.1")
def omni_transfer_sent(event: events.TransferSent) -> None:
    """A payload left one stage for the next. In the server only, once for each payload."""


@hookspec(since="0.1")
def omni_transfer_received(event: events.TransferReceived) -> None:
    """A payload arrived at a stage. In the server only, once for each arrival."""


@hookspec(since="0.1")
def omni_transfer_failed(event: events.TransferFailed) -> None:
    """A payload was lost. In the server only, once for each, when nobody tries any more."""


@hookspec(since="0.2")
def omni_kv_waited(event: events.KvWaited) -> None:
    """A stage's KV cache of a request was taken by the connector. In the server only."""


@hookspec(since="0.1")
def omni_events_dropped(event: events.EventsDropped) -> None:
    """Events of the stage engines' processes did not arrive in the server."""
