"""The events of what a request generates: audio, images, videos."""

from __future__ import annotations

from typing import Literal

import msgspec

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.hooks.events.diffusion import DiffusionWork
from vllm_omni_metrics_plugin.hooks.renamed import RenamedField
from vllm_omni_metrics_plugin.media.playback import Ending

Modality = Literal["audio"]

Unheard = Literal[
    "no_audible_sound",
    "left_before_sound",
    "unknown_arrival",
    "during_input",
    "on_device",
    "unknown_form",
    "queue_full",
    "internal_error",
]


class MediaPacket(Event, frozen=True, kw_only=True):
    """One packet of media leaves the engine for the client."""

    request_id: str
    model_name: str
    modality: Modality
    #: Counts the request's packets of this modality from 0.
    index: int
    #: New samples per channel in this packet, also when the engine repeats earlier ones.
    samples: int
    #: Hz.
    sample_rate: int | None
    stage: int
    replica: int | None
    left_at: float
    #: Of a request whose input is streamed, since the end of that input. None where the arrival is
    #: not known, and while the input goes on.
    since_arrival_seconds: float | None
    #: False when the whole output leaves in one piece because the client did not ask to stream.
    streamed: bool
    #: The client streams its input and has not ended it.
    during_input: bool = False
    #: As :class:`RequestArrived` says.
    trace_id: str | None = None


class AudioFinished(Event, frozen=True, kw_only=True):
    """A request's audio output is complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    #: Samples per channel; 0 when the engine finished without any audio.
    samples: int
    #: Hz.
    sample_rate: int | None
    #: ``samples / sample_rate``; None when there are no samples or no sample rate.
    duration_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    #: Arrival (or the end of a streamed input) to first packet; None for a request that was not
    #: streamed, or whose arrival is not known, and if the input ended later than that.
    first_packet_seconds: float | None
    streamed: bool
    #: The first packet left before the client had ended its streamed input.
    during_input: bool = False

    frames = RenamedField[int]("samples")

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds of generation for one second of audio; below 1 has no gaps.

        None when either was not measured and when there is no audio. None as well if the first
        packet left before a streamed input ended: some of the audio was generated meanwhile.
        """
        return None if self.during_input else _rtf(self.generation_seconds, self.duration_seconds)


class PlaybackStalled(Event, frozen=True, kw_only=True):
    """A player of a stream has played all that arrived, and its listener hears nothing.

    Called 1 ms after that, on the event loop on which the packets come; with the next packet if
    that loop was not quicker, or is none. Nobody knows yet whether another packet follows, so the
    end of a stream may be taken for a stall: :class:`StreamFinished` counts those that were.
    """

    request_id: str
    model_name: str
    #: The stage that makes the audio.
    stage: int
    replica: int | None
    #: The player's: audio that it waits for before it resumes.
    buffer_seconds: float
    #: When the silence began.
    stalled_at: float
    #: Audio that it had played until then.
    played_seconds: float


class Playing(msgspec.Struct, frozen=True, kw_only=True):
    """How one player played a stream that it heard something of."""

    #: Of audio that it waits for before it starts and before it resumes.
    buffer_seconds: float
    #: Silences of at least 1 ms after its start.
    stalls: int
    #: All silences together.
    stall_seconds: float
    #: The longest of them; 0 without one.
    longest_stall_seconds: float
    #: Audio that was played before the first stall; None without one.
    first_stall_at_seconds: float | None
    #: Audio that was played in all.
    played_seconds: float


class StreamFinished(Event, frozen=True, kw_only=True):
    """A response with streamed audio is over, whether its listener heard all of it or not.

    Called before the request's :class:`RequestFinished`, which has it, in the same thread. That of
    an utterance of several requests is called when all of them have ended.
    """

    #: Of an utterance that was several requests, the last one's; so are stage and replica.
    request_id: str
    model_name: str
    #: The stage that makes the audio.
    stage: int
    replica: int | None
    #: ``smooth``, ``stalled``: complete, without and with a stall of the first player.
    #: ``left_before_audio``, ``left_playing``, ``left_stalled``: the client left before that player
    #: started, while it played, in a silence. ``error``: the response broke off, or had no audio.
    #: None where the length of the audio is not known.
    ending: Ending | None
    #: The start's delay that would have made it gapless; None of one without audio.
    underrun_seconds: float | None
    #: One for each player; none of a stream without audio.
    players: tuple[Playing, ...]
    #: Of the audio, before its first sound; None where ``unheard`` says why, and without audio.
    leading_silence_seconds: float | None
    #: Arrival (or the end of a streamed input) to the moment when the first player played the first
    #: sound: its start, the leading silence, and its stalls before the sound. None where
    #: ``unheard`` says why, and without audio.
    first_audible_seconds: float | None
    #: ``no_audible_sound``: none came in the first 3 s, or in all of it. ``left_before_sound``: the
    #: listener left before it. ``unknown_arrival``, ``during_input``: it was heard, but it is not
    #: known how long after the request, or before its streamed input ended. The others are of the
    #: audio: ``on_device``, where it is not copied from; ``unknown_form``; ``queue_full``, too many
    #: packets waited to be looked at; ``internal_error``, of this package.
    unheard: Unheard | None
    #: More than 1 for an utterance of which a websocket's endpoint made several.
    requests: int = 1
    #: As :class:`RequestArrived` says of the request.
    trace_id: str | None = None


class ImageFinished(Event, frozen=True, kw_only=True):
    """A request's images are complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    images: int
    #: Width x height of each image, as generated.
    pixels: tuple[int, ...]
    #: The stage delivered something whose form does not tell images (latents, for instance).
    unknown_form: bool
    #: Arrival to the first output with an image in it; None when there was none, or the arrival is
    #: not known.
    first_image_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    diffusion: DiffusionWork | None


class VideoFinished(Event, frozen=True, kw_only=True):
    """A request's videos are complete. Not sent for requests that were cut short."""

    request_id: str
    model_name: str
    stage: int
    replica: int | None
    videos: int
    #: Of all videos together; None when the output's form does not tell (latents, for instance).
    frames: int | None
    #: Hz, as encoded where the endpoint encodes, else as the output states, else as requested.
    frame_rate: float | None
    #: ``frames / frame_rate``; None unless both are known and there are frames.
    duration_seconds: float | None
    #: Arrival to the first output with frames in it; None when there was none.
    first_video_seconds: float | None
    #: Stage submit to stage finish, as in :class:`StageFinished`.
    generation_seconds: float | None
    diffusion: DiffusionWork | None

    @property
    def rtf(self) -> float | None:
        """Real-time factor: seconds of generation for one second of video.

        None when either was not measured and when there is no video.
        """
        return _rtf(self.generation_seconds, self.duration_seconds)


def _rtf(generation_seconds: float | None, duration_seconds: float | None) -> float | None:
    if generation_seconds is None or not duration_seconds:
        return None
    return generation_seconds / duration_seconds
