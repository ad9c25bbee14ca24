"""Every hook: one per event, one argument.

Implementations are called in the thread where the event happens (the server's event loop, its
orchestrator thread, the thread that receives events of other processes), so they must be quick
and safe to call from several threads; ``@hookimpl(slow=True)`` ones are called on a thread of their
own instead. What they return is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pluggy import HookspecMarker

from vllm_omni_metrics_plugin.hooks import events

PROJECT = "vllm_omni_metrics_plugin"

#: Set on hooks: the version with which each came.
SINCE = f"{PROJECT}_since"
#: Set on hooks: what people use each for.
USED_FOR = f"{PROJECT}_used_for"

Function = TypeVar("Function", bound=Callable[..., object])

_mark_spec = HookspecMarker(PROJECT)


def hookspec(
    *, since: str, used_for: str = "", historic: bool = False
) -> Callable[[Function], Function]:
    """Mark a function as a hook, which came with version ``since`` of this package.

    ``used_for``: what people use it for, as a sentence of its page. ``historic``: implementations
    that are registered later are called with its past events, too.
    """

    def mark(spec: Function) -> Function:
        setattr(spec, SINCE, since)
        setattr(spec, USED_FOR, used_for)
        return _mark_spec(spec, historic=historic)

    return mark


@hookspec(
    since="0.1",
    used_for=(
        "Opening what a plugin needs, in the process that it is for; noting the "
        "versions that a measurement was made with."
    ),
    historic=True,
)
def omni_configured(event: events.Configured) -> None:
    """The plugin is ready in this process. Implementations that register later are called, too."""


@hookspec(
    since="0.1",
    used_for=(
        "An alert when an engine that was upgraded no longer has a method that a family needs."
    ),
    historic=True,
)
def omni_patch_reported(event: events.PatchReported) -> None:
    """A patch was applied, deferred, skipped or failed.

    Implementations that register later are called with what became of each, too.
    """


@hookspec(
    since="0.1",
    used_for="A list of what serves now; giving a replica's gauges their first value.",
)
def omni_replica_joined(event: events.ReplicaJoined) -> None:
    """A replica became a member of its stage."""


@hookspec(
    since="0.1",
    used_for="A message to whoever is on call; removing a replica's gauges.",
)
def omni_replica_left(event: events.ReplicaLeft) -> None:
    """A replica left its stage, or died."""


@hookspec(
    since="0.1",
    used_for=(
        "The engine's own numbers for which there is no family, such as the KV cache's "
        "use by batch."
    ),
)
def omni_engine_stats(event: events.EngineStats) -> None:
    """A stage engine's statistics were recorded, with every batch."""


@hookspec(
    since="0.1",
    used_for="Counting arrivals by what is asked for; beginning what a plugin keeps of a request.",
)
def omni_request_arrived(event: events.RequestArrived) -> None:
    """The client-facing engine took a request in."""


@hookspec(
    since="0.1",
    used_for="Seeing how a pipeline spreads its requests over the replicas.",
)
def omni_stage_submitted(event: events.StageSubmitted) -> None:
    """A stage replica was given the request."""


@hookspec(
    since="0.2",
    used_for="Telling waiting from working in a stage; the beginning of a trace's span.",
)
def omni_stage_started(event: events.StageStarted) -> None:
    """A stage replica began to execute the request. In the server only."""


@hookspec(
    since="0.2",
    used_for="How long a replica was busy, and with whom; the end of a trace's span.",
)
def omni_stage_ended(event: events.StageEnded) -> None:
    """A stage replica executes the request no more. In the server only."""


@hookspec(
    since="0.1",
    used_for="Tokens and times by stage, for a bill or a log line.",
)
def omni_stage_finished(event: events.StageFinished) -> None:
    """A stage replica finished the request."""


@hookspec(
    since="0.1",
    used_for="Slow first packets while they happen; the rhythm of a stream, packet by packet.",
)
def omni_media_packet(event: events.MediaPacket) -> None:
    """A packet of media leaves the engine for the client."""


@hookspec(
    since="0.1",
    used_for="Seconds of speech that were made, for a bill; the real-time factor of each request.",
)
def omni_audio_finished(event: events.AudioFinished) -> None:
    """A request's audio output is complete."""


@hookspec(
    since="0.2",
    used_for="An alert while the listener hears nothing; an example of a bad stream to look at.",
)
def omni_playback_stalled(event: events.PlaybackStalled) -> None:
    """A player of a stream ran dry, and its listener hears nothing; while it lasts."""


@hookspec(
    since="0.2",
    used_for="How good a stream was to listen to, for a log line or a comparison of models.",
)
def omni_stream_finished(event: events.StreamFinished) -> None:
    """A response with streamed audio is over, complete or not."""


@hookspec(
    since="0.1",
    used_for="Images and megapixels that were made, for a bill; time by size.",
)
def omni_image_finished(event: events.ImageFinished) -> None:
    """A request's images are complete."""


@hookspec(
    since="0.1",
    used_for="Seconds of video that were made, for a bill; how they compare with playing them.",
)
def omni_video_finished(event: events.VideoFinished) -> None:
    """A request's videos are complete, and their frame rate is known if it ever will be."""


@hookspec(
    since="0.1",
    used_for="The access log's line; a bill; forgetting what was kept of the request.",
)
def omni_request_finished(event: events.RequestFinished) -> None:
    """A request ended; exactly once per arrived request."""


@hookspec(
    since="0.2",
    used_for="Collecting the requests that broke a promise, with what they broke.",
)
def omni_request_judged(event: events.RequestJudged) -> None:
    """A request got its verdict, once for each objective that is about it, at its end."""


@hookspec(
    since="0.2",
    used_for="How many speak with the engine now; which model they chose.",
)
def omni_session_opened(event: events.SessionOpened) -> None:
    """A client opened a session of speech in and out at once."""


@hookspec(
    since="0.2",
    used_for="An alert when the server is full.",
)
def omni_session_refused(event: events.SessionRefused) -> None:
    """A session was not opened, as there are too many for example."""


@hookspec(
    since="0.2",
    used_for="Telling sessions whose client is gone from those that are in use.",
)
def omni_session_attachment(event: events.SessionAttachment) -> None:
    """The client of an open session is gone, or is back."""


@hookspec(
    since="0.2",
    used_for="How long conversations last, and why they end.",
)
def omni_session_closed(event: events.SessionClosed) -> None:
    """A session is over; exactly once per opened session."""


@hookspec(
    since="0.2",
    used_for="How many of the sessions have the server listen for speech.",
)
def omni_voice_detection(event: events.VoiceDetection) -> None:
    """The server begins to listen for speech in a session, or listens no more."""


@hookspec(
    since="0.2",
    used_for="Finding a threshold for a noisy line; whether the detector keeps up.",
)
def omni_voice_scored(event: events.VoiceScored) -> None:
    """The detector has listened to a piece of sound; some ten times a second in each session."""


@hookspec(
    since="0.2",
    used_for="An alert when sessions go on without a detector.",
)
def omni_voice_failed(event: events.VoiceFailed) -> None:
    """The server wanted to listen for speech, and could not."""


@hookspec(
    since="0.2",
    used_for="A log of who is being answered.",
)
def omni_turn_started(event: events.TurnStarted) -> None:
    """The engine begins to answer in a session."""


@hookspec(
    since="0.2",
    used_for="Latency of an answer from the end of the user's speech; a log line per turn.",
)
def omni_turn_finished(event: events.TurnFinished) -> None:
    """The engine answers no more; exactly once per turn that started."""


@hookspec(
    since="0.2",
    used_for="How much of what was generated its listener heard.",
)
def omni_turn_played(event: events.TurnPlayed) -> None:
    """What became of a turn's audio is certain, as far as it ever will be."""


@hookspec(
    since="0.2",
    used_for="How quickly the engine is silent when its user interrupts it.",
)
def omni_barge_in(event: events.BargeIn) -> None:
    """The user interrupted an answer, and the server has reacted."""


@hookspec(
    since="0.1",
    used_for="Bytes by edge; the beginning of a payload's way in a trace.",
)
def omni_transfer_sent(event: events.TransferSent) -> None:
    """A payload left one stage for the next. In the server only, once for each payload."""


@hookspec(
    since="0.1",
    used_for="How long payloads are under way between two hosts.",
)
def omni_transfer_received(event: events.TransferReceived) -> None:
    """A payload arrived at a stage. In the server only, once for each arrival."""


@hookspec(
    since="0.1",
    used_for="A message that names the edge and the reason, while the request still hangs.",
)
def omni_transfer_failed(event: events.TransferFailed) -> None:
    """A payload was lost. In the server only, once for each, when nobody tries any more."""


@hookspec(
    since="0.2",
    used_for="Finding the stage whose memory is held by a slow connector.",
)
def omni_kv_waited(event: events.KvWaited) -> None:
    """A stage's KV cache of a request was taken by the connector. In the server only."""


@hookspec(
    since="0.1",
    used_for="Knowing that what a plugin counts of other processes is too low.",
)
def omni_events_dropped(event: events.EventsDropped) -> None:
    """Events of the stage engines' processes did not arrive in the server."""
