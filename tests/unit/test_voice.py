"""How the server listens for speech in a session: since when, how long it takes, and what fails."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.conversation import Conversation
from tests.unit.listening import FRAME_SECONDS, LOAD_SECONDS, Listening
from vllm_omni_metrics_plugin import catalog, internal_errors
from vllm_omni_metrics_plugin.hooks import (
    SessionClosed,
    SessionOpened,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
)
from vllm_omni_metrics_plugin.patches.duplex import voice
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.testing import Recorder, make_event

WANTED = {"type": "server_vad"}


@pytest.fixture
def talk(state: EngineState, clock: Any, recorder: Recorder) -> Listening:
    talk = Listening(state, clock, turn_detection=WANTED)
    talk.open()
    return talk


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(state: EngineState) -> Any:
    yield
    assert internal_errors.errors.counts() == {}
    assert state.voices == {}


def detection(recorder: Recorder) -> list[bool]:
    return [event.active for event in recorder.of(VoiceDetection)]


# What stays as it was


@pytest.mark.parametrize("frames", [1, 3])
def test_engine_gets_what_its_detector_says(talk: Listening, frames: int) -> None:
    result = talk.hear(frames)
    assert talk.vad.frames == frames
    assert result.speech_probability == pytest.approx(1 - 1 / (frames + 1))


def test_engines_own_exception_stays_its_own(talk: Listening, recorder: Recorder) -> None:
    talk.vad.raises[2] = error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError) as raised:
        talk.hear(3)
    assert raised.value is error
    assert recorder.only(VoiceFailed).reason == "failed"
    assert detection(recorder) == [True], "it listens to the next piece"
    assert recorder.of(VoiceScored) == []


def test_session_that_ends_while_it_is_listened_to_is_no_failure(
    talk: Listening, recorder: Recorder
) -> None:
    async def ends() -> None:
        listens = asyncio.ensure_future(talk.hears(1))
        await asyncio.to_thread(began.wait)
        listens.cancel()
        ended.set()
        with pytest.raises(asyncio.CancelledError):
            await listens

    def process(_: int) -> None:
        began.set()
        ended.wait()

    began, ended = threading.Event(), threading.Event()
    talk.vad.process = process
    asyncio.run(ends())
    assert recorder.of(VoiceFailed) == []


def test_detector_of_another_shape_goes_on_and_is_counted(
    talk: Listening, recorder: Recorder
) -> None:
    talk.control._ctx.manager = None
    assert talk.hear(2) is not None
    assert internal_errors.errors.counts() == {"a piece that is listened to": 1}
    internal_errors.errors = internal_errors.InternalErrors()


def test_without_a_hook_implementation_no_frame_is_timed_and_no_event_made(
    clock: Any, hooks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def costs(**_: Any) -> float:
        raise AssertionError("nobody wants to know")

    monkeypatch.setattr(voice, "time", SimpleNamespace(monotonic=costs))
    for event in ("VoiceDetection", "VoiceFailed", "VoiceScored"):
        monkeypatch.setattr(f"vllm_omni_metrics_plugin.sessions.voice.{event}", costs)
    talk = Listening(EngineState(hooks), clock)
    talk.open()
    assert talk.hear(2) is not None
    talk.vad.raises[3] = ValueError("no audio")
    assert talk.hear(1) is None
    talk.close()


# How long it takes


def test_each_frame_is_timed_without_the_model_that_the_first_one_waits_for(
    talk: Listening, recorder: Recorder
) -> None:
    for frames in (3, 2):
        talk.hear(frames)
    first, second = recorder.of(VoiceScored)
    assert first.inference_seconds == pytest.approx((FRAME_SECONDS,) * 3)
    assert first.load_seconds == pytest.approx(LOAD_SECONDS)
    assert second.inference_seconds == pytest.approx((FRAME_SECONDS,) * 2)
    assert second.load_seconds is None
    assert (first.session_id, first.model_name) == (talk.session_id, "tiny")
    assert (first.probability, first.speaking) == (0.75, True)


def test_piece_without_a_full_frame_is_not_listened_to(talk: Listening, recorder: Recorder) -> None:
    talk.vad.process = lambda _: SimpleNamespace(speech_probability=0.0, speech_active=False)
    assert talk.hear(1) is not None
    assert recorder.of(VoiceScored) == []


def test_pieces_of_two_sessions_are_kept_apart(
    talk: Listening, state: EngineState, clock: Any, recorder: Recorder
) -> None:
    other = Listening(state, clock, session_id="duplex-2", manager=talk.manager)
    other.open()
    process, done = talk.vad.process, threading.Event()

    def waits_for_the_other(frames: int) -> Any:
        done.wait()
        return process(frames)

    async def both() -> None:
        slow = asyncio.ensure_future(talk.hears(2))
        await other.hears(1)
        done.set()
        await slow

    talk.vad.process = waits_for_the_other
    asyncio.run(both())
    assert [(e.session_id, len(e.inference_seconds)) for e in recorder.of(VoiceScored)] == [
        ("duplex-2", 1),
        (talk.session_id, 2),
    ]


def test_detector_that_no_session_asked_is_none_of_ours(
    talk: Listening, recorder: Recorder
) -> None:
    talk.vad.process(4)
    assert recorder.of(VoiceScored) == []


# What fails


def test_session_goes_on_without_a_detector_that_cannot_be_had(
    talk: Listening, recorder: Recorder
) -> None:
    talk.vad.has_no_model = True
    for _ in range(3):
        assert talk.hear(1) is None
    assert recorder.only(VoiceFailed).reason == "unavailable"
    assert detection(recorder) == [True, False]
    talk.close()
    assert detection(recorder) == [True, False]


def test_piece_that_cannot_be_read_fails_alone(talk: Listening, recorder: Recorder) -> None:
    talk.vad.raises[1] = ValueError("no audio")
    assert talk.hear(1) is None
    assert talk.hear(1) is not None
    assert recorder.only(VoiceFailed).reason == "bad_audio"
    assert detection(recorder) == [True]


def test_piece_without_sound_is_no_failure(talk: Listening, recorder: Recorder) -> None:
    assert talk.hear(0) is None
    assert recorder.of(VoiceFailed) == []


def test_settings_that_the_engine_drops_without_a_word_are_a_failure(
    state: EngineState, clock: Any, recorder: Recorder
) -> None:
    Conversation(state, clock, turn_detection=WANTED).open()
    failed = recorder.only(VoiceFailed)
    assert (failed.reason, failed.model_name) == ("settings", "tiny")
    assert detection(recorder) == []


@pytest.mark.parametrize("settings", [None, {"type": "model"}])
def test_client_that_wants_nobody_to_listen_has_what_it_wants(
    state: EngineState, clock: Any, recorder: Recorder, settings: dict[str, Any] | None
) -> None:
    Conversation(state, clock, turn_detection=settings).open()
    assert recorder.of(VoiceFailed) == []
    assert detection(recorder) == []


def test_settings_that_the_engine_refuses_are_a_failure_and_other_errors_are_none(
    talk: Listening, recorder: Recorder
) -> None:
    talk.tell("ErrorEvent", code="bad_event")
    talk.tell("ErrorEvent", code="unsupported_turn_detection")
    assert recorder.only(VoiceFailed).reason == "settings"
    assert detection(recorder) == [True]


# In which sessions


def test_session_is_listened_to_from_its_opening_to_its_end(
    talk: Listening, recorder: Recorder
) -> None:
    talk.close()
    talk.close()
    kinds = [type(event) for event in recorder.events]
    assert kinds == [SessionOpened, VoiceDetection, VoiceDetection, SessionClosed]
    assert detection(recorder) == [True, False]


def test_client_switches_it_off_and_on(talk: Listening, recorder: Recorder) -> None:
    detector = talk.control._detector
    for other in (detector, None, None, detector):
        talk.change(other)
    assert detection(recorder) == [True, False, True]


def test_engine_that_ends_listens_to_nobody(talk: Listening, recorder: Recorder) -> None:
    talk.shut_down()
    assert detection(recorder) == [True, False]


# The families


def test_everything_stands_at_0_with_the_first_session(exposed: Any) -> None:
    exposed.join()
    assert exposed.value("voice_detection_sessions", model_name="tiny") is None
    exposed.hooks.omni_session_opened(make_event(SessionOpened))
    assert exposed.value("voice_detection_sessions", model_name="tiny") == 0
    assert exposed.value("voice_detection_inference_seconds_count", model_name="tiny") == 0
    for reason in catalog.BY_STEM["voice_detection_errors_total"].known["reason"]:
        labels = {"model_name": "tiny", "reason": reason}
        assert exposed.value("voice_detection_errors_total", **labels) == 0, reason


def test_every_frame_is_a_sample(exposed: Any) -> None:
    exposed.join()
    for seconds in ((0.25, 0.5), (0.125,)):
        exposed.hooks.omni_voice_scored(make_event(VoiceScored, inference_seconds=seconds))
    assert exposed.value("voice_detection_inference_seconds_count", model_name="tiny") == 3
    assert exposed.value("voice_detection_inference_seconds_sum", model_name="tiny") == 0.875


def test_sessions_that_are_listened_to_are_counted_up_and_down(exposed: Any) -> None:
    exposed.join()
    counts = []
    for active in (True, True, False, False):
        exposed.hooks.omni_voice_detection(make_event(VoiceDetection, active=active))
        counts.append(exposed.value("voice_detection_sessions", model_name="tiny"))
    assert counts == [1, 2, 1, 0]


def test_failures_count_by_their_reason(exposed: Any) -> None:
    exposed.join()
    for reason in ("failed", "failed", "bad_audio"):
        exposed.hooks.omni_voice_failed(make_event(VoiceFailed, reason=reason))
    counts = {
        reason: exposed.value("voice_detection_errors_total", model_name="tiny", reason=reason)
        for reason in ("failed", "bad_audio", "settings")
    }
    assert counts == {"failed": 2, "bad_audio": 1, "settings": 0}
