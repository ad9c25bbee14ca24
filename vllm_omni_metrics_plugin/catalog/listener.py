"""The families of what a listener hears."""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.buckets import WAIT_SECONDS
from vllm_omni_metrics_plugin.catalog.family import STAGE, Family
from vllm_omni_metrics_plugin.media.playback import ENDINGS

#: Dense where gaps begin to be heard; 0.1 is the bench's bound of continuity.
_SILENCE_SECONDS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)
_PLAYER = (*STAGE, "player")
_MISSING = ("unknown_replica", "no_sample_rate")
#: Why the first sound was not found.
_NOT_FOUND = (
    *("no_audible_sound", "left_before_sound"),
    *("on_device", "unknown_form", "queue_full", "internal_error"),
)

LISTENER: tuple[Family, ...] = (
    Family(
        stem="audio_streams_total",
        kind="counter",
        labels=(*STAGE, "ending"),
        unit="streams",
        help="Responses with streamed audio that are over, by how they ended for the listener; "
        "the first player decides. An utterance of several requests is one.",
        event="omni_stream_finished",
        formula="+1 by ending",
        known={"ending": ENDINGS},
        missing=_MISSING,
    ),
    Family(
        stem="audio_underrun_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="The delay of the start that would have made a stream play without a gap, of every "
        "stream with audio, aborted ones included.",
        event="omni_stream_finished",
        formula="underrun_seconds",
        buckets=_SILENCE_SECONDS,
        missing=_MISSING,
    ),
    Family(
        stem="audio_stalls_total",
        kind="counter",
        labels=_PLAYER,
        unit="stalls",
        help="Silences of at least 1 ms within streams; player is the seconds of its buffer.",
        event="omni_stream_finished",
        formula="+ stalls, by player",
        missing=_MISSING,
    ),
    Family(
        stem="audio_stall_seconds_total",
        kind="counter",
        labels=_PLAYER,
        unit="seconds",
        help="Seconds of silence within streams; player is the seconds of its buffer.",
        event="omni_stream_finished",
        formula="+ stall_seconds, by player",
        missing=_MISSING,
    ),
    Family(
        stem="audio_played_seconds_total",
        kind="counter",
        labels=_PLAYER,
        unit="seconds",
        help="Seconds of streamed audio that were played; player is the seconds of its buffer.",
        event="omni_stream_finished",
        formula="+ played_seconds, by player",
        missing=_MISSING,
    ),
    Family(
        stem="audio_longest_stall_seconds",
        kind="histogram",
        labels=_PLAYER,
        unit="seconds",
        help="The longest silence within a stream, 0 without one; player is the seconds of its "
        "buffer.",
        event="omni_stream_finished",
        formula="longest_stall_seconds, by player",
        buckets=_SILENCE_SECONDS,
        missing=_MISSING,
    ),
    Family(
        stem="audio_first_audible_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="Arrival to the first sound that a listener heard of a stream; the silence with which "
        "the audio begins and the first player's stalls in it are part of it.",
        event="omni_stream_finished",
        formula="first_audible_seconds",
        buckets=WAIT_SECONDS,
        missing=(*_MISSING, *_NOT_FOUND, "unknown_arrival", "during_input"),
    ),
    Family(
        stem="audio_leading_silence_seconds",
        kind="histogram",
        labels=STAGE,
        unit="seconds",
        help="The silence with which a stream's audio begins, up to 3 s.",
        event="omni_stream_finished",
        formula="leading_silence_seconds",
        buckets=_SILENCE_SECONDS,
        missing=(*_MISSING, *_NOT_FOUND),
    ),
)
