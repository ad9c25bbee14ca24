"""Sessions of speech in and out at once, on the installed engine's own manager and events."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import importlib
import struct
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import paths
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    BargeIn,
    MediaPacket,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TurnFinished,
    TurnPlayed,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
)
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.duplex import told, voice
from vllm_omni_metrics_plugin.patches.state import EngineState, Stage
from vllm_omni_metrics_plugin.testing import Recorder

SESSION = "duplex-1"
TURN = "resp-duplex-1-0-abc"


class Port(SimpleNamespace):
    """The orchestrator, as far as the manager asks it anything."""

    def sampling_defaults(self) -> tuple[Any, ...]:
        return ()


@pytest.fixture
def manager(seams: Patches, state: EngineState, recorder: Recorder) -> Any:
    from vllm_omni.engine.duplex.session.manager import DuplexSessionManager

    class Pool:
        stage_id = 0

        def live_replica_ids(self) -> list[int]:
            return [0]

    pool = Pool()
    state.stages[pool] = Stage("tiny", "voice", "llm", ("audio",))
    manager = object.__new__(DuplexSessionManager)
    manager.stage_port = Port(stage_pools=[pool], stage_count=1)
    manager.model_config = None
    manager.runners = {}
    manager.sent = []
    manager._output_sink = SimpleNamespace(put_nowait=manager.sent.append)

    async def put(result: Any) -> None:
        manager.sent.append(result)

    manager._result_sink = SimpleNamespace(put=put)
    return manager


def open_session(manager: Any) -> None:
    from vllm_omni.engine.duplex import events

    session = SimpleNamespace(
        active_request_id="duplex-request", response_config=SimpleNamespace(modalities=["audio"])
    )
    control = SimpleNamespace(_config=SimpleNamespace(silence_duration_ms=500))
    submitted: list[Any] = []
    session.capabilities = SimpleNamespace(validate_append_modalities=lambda **_: None)
    session.reserve_input_bytes = lambda *_, **__: True
    session.reserve_pending_turn = lambda **_: True
    manager.runtime_config = SimpleNamespace(
        max_pending_input_bytes_per_session=1 << 20, max_pending_turns_per_session=4
    )
    manager.runners[SESSION] = SimpleNamespace(
        session=session, control=control, closing=False, submit=submitted.append
    )
    manager._emit_raw(SESSION, events.SessionCreated())


def send(manager: Any, command: Any) -> None:
    from vllm_omni.engine.duplex.messages import DuplexSessionCommandMessage

    manager.dispatch(DuplexSessionCommandMessage(session_id=SESSION, command=command))


def test_turn_of_the_engines_own_events_is_measured(manager: Any, recorder: Recorder) -> None:
    from vllm_omni.engine.duplex import events
    from vllm_omni.engine.duplex.commands import AppendAudio
    from vllm_omni.engine.duplex.commands import BargeIn as BargeInCommand

    open_session(manager)
    for _ in range(8):
        send(manager, AppendAudio(audio=b"\0" * 3200))
    for event in (
        events.SpeechStarted(item_id="item-1"),
        events.SpeechStopped(item_id="item-1", audio_end_ms=800),
        events.InputCommitted(item_id="item-1", details={}),
        events.ResponseCreated(response_id=TURN),
        events.AudioDelta(
            response_id=TURN, delta=base64.b64encode(b"\0" * 4800).decode(), sample_rate_hz=24000
        ),
        events.PlaybackAcknowledged(details={"item_id": f"item_{TURN}", "played_ms": 50}),
    ):
        manager._emit_raw(SESSION, event)
    send(manager, BargeInCommand())
    done = {"status": "cancelled", "status_details": {"reason": "barge_in"}}
    manager._emit_raw(SESSION, events.ResponseDone(response_id=TURN, response=done))
    manager._emit_raw(SESSION, events.SessionExpired(reason="idle_ttl_expired"))
    finished = recorder.only(TurnFinished)
    assert (finished.outcome, finished.origin, finished.samples) == ("barge_in", "speech", 2400)
    for seconds in (
        finished.latency_seconds,
        finished.heard_latency_seconds,
        finished.endpoint_delay_seconds,
        recorder.only(BargeIn).reaction_seconds,
    ):
        assert seconds is not None
    assert recorder.only(MediaPacket).request_id == "duplex-request"
    played = recorder.only(TurnPlayed)
    assert (played.acknowledged, played.discarded) == (1200, 1200)
    assert recorder.only(SessionOpened).model_name == "tiny"
    assert recorder.only(SessionClosed).reason == "idle"
    assert internal_errors.errors.counts() == {}
    assert len(manager.sent) == 9, "each event left the engine"


def test_refusal_has_the_engines_code(manager: Any, recorder: Recorder) -> None:
    from vllm_omni.engine.duplex.config import DuplexSessionConfig
    from vllm_omni.engine.duplex.messages import DuplexSessionError, OpenDuplexSessionMessage

    message = OpenDuplexSessionMessage(
        control_id="1", session_id=SESSION, session_config=DuplexSessionConfig()
    )
    full = DuplexSessionError("too many", code="resource_exhausted", retryable=True)
    asyncio.run(manager._put_result(message, operation="open", ok=False, error=full))
    assert recorder.only(SessionRefused).code == "resource_exhausted"
    assert manager.sent[0].error_code == "resource_exhausted"


def test_every_event_that_is_looked_at_is_one_of_the_engines() -> None:
    from vllm_omni.engine.duplex import events

    known = {name for name in told._HANDLERS if hasattr(events, name)}
    assert known == set(told._HANDLERS)


def test_detector_listens_in_frames_of_32_ms() -> None:
    from vllm_omni.engine.duplex import vad

    frame = vad.SileroStreamingVAD._WINDOW_SAMPLES / vad.SileroStreamingVAD._SAMPLE_RATE_HZ
    assert frame * 1000 == told.FRAME_MILLISECONDS


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The place of the engine's detector model is taken by one to which loud is speech."""
    monkeypatch.syspath_prepend(str(paths.TESTBED / "detector"))
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    yield importlib.import_module("silero_vad")
    sys.modules.pop("silero_vad", None)


def control_of(manager: Any, turn_detection: dict[str, Any] | None) -> Any:
    """The engine's own control of an open session, with what the engine makes of the settings."""
    from vllm_omni.engine.duplex import events
    from vllm_omni.engine.duplex.session.control import SessionControl
    from vllm_omni.engine.duplex.vad import SileroVADBackendProvider

    async def offload(function: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    def emit_error(code: str, message: str) -> None:
        manager._emit_raw(SESSION, events.ErrorEvent(code=code, message=message))

    extra = {"realtime_turn_detection": turn_detection}
    session = SimpleNamespace(session_id=SESSION, config=SimpleNamespace(extra_body=extra))
    manager.vad_backend_provider = SileroVADBackendProvider()
    context: Any = SimpleNamespace(
        session=session, manager=manager, services=SimpleNamespace(offload=offload)
    )
    out: Any = SimpleNamespace(emit_error=emit_error)
    control = SessionControl(context, out, None, wait_for_append_tail=None)
    control.init_turn_detection()
    manager.runners[SESSION] = SimpleNamespace(session=session, control=control)
    manager._emit_raw(SESSION, events.SessionCreated())
    return control


def hear(control: Any, samples: int, loudness: int = 0, **changes: Any) -> Any:
    """A piece of sound of so many samples, as the engine hands it to its detector."""
    audio = base64.b64encode(struct.pack(f"<{samples}h", *[loudness] * samples)).decode()
    event = {"audio": audio, "format": "pcm16", "sample_rate_hz": 16_000} | changes
    return asyncio.run(control.run_turn_detection(event))


def detection(recorder: Recorder) -> list[bool]:
    return [event.active for event in recorder.of(VoiceDetection)]


def test_each_frame_that_the_engines_detector_scores_is_timed(
    manager: Any, recorder: Recorder, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_omni.engine.duplex import events

    now = 0.0
    load, score = detector.load_silero_vad, detector._Loudness.__call__

    def loads(*args: Any, **kwargs: Any) -> Any:
        nonlocal now
        now += 4.0
        return load(*args, **kwargs)

    def scores(*args: Any) -> Any:
        nonlocal now
        now += 0.25
        return score(*args)

    monkeypatch.setattr(voice, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(detector, "load_silero_vad", loads)
    monkeypatch.setattr(detector._Loudness, "__call__", scores)
    control = control_of(manager, {"type": "server_vad"})
    for samples, loudness in ((1600, 8000), (300, 0), (1600, 0), (1600, 0)):
        result = hear(control, samples, loudness)
        assert result is not None
    manager._emit_raw(SESSION, events.SessionClosed(reason="client_close"))
    scored = recorder.of(VoiceScored)
    # What is left over goes before the next piece: 64 samples, 364, then 428.
    assert [event.inference_seconds for event in scored] == [(0.25,) * 3] * 3
    assert [event.load_seconds for event in scored] == [4.0, None, None]
    assert [event.probability for event in scored] == [1.0, 1.0, 0.0]
    assert [event.speaking for event in scored] == [True] * 3, "no silence of 500 ms came"
    assert detection(recorder) == [True, False]
    assert recorder.of(VoiceFailed) == []
    assert internal_errors.errors.counts() == {}


def test_session_whose_detector_cannot_be_had_is_listened_to_no_more(
    manager: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    control = control_of(manager, {"type": "server_vad"})
    assert [hear(control, 1600) for _ in range(2)] == [None, None]
    assert recorder.only(VoiceFailed).reason == "unavailable"
    assert detection(recorder) == [True, False]
    assert internal_errors.errors.counts() == {}


@pytest.mark.usefixtures("detector")
def test_piece_that_the_detector_cannot_read_fails_alone(manager: Any, recorder: Recorder) -> None:
    control = control_of(manager, {"type": "server_vad"})
    assert hear(control, 1600, format="opus") is None
    assert hear(control, 1600) is not None
    assert recorder.only(VoiceFailed).reason == "bad_audio"
    assert detection(recorder) == [True]


@pytest.mark.usefixtures("detector")
def test_what_the_engine_raises_while_it_listens_is_a_failure(
    manager: Any, recorder: Recorder, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(detector._Loudness, "__call__", fails)
    control = control_of(manager, {"type": "server_vad"})
    with pytest.raises(RuntimeError, match="out of memory"):
        hear(control, 1600)
    assert recorder.only(VoiceFailed).reason == "failed"


def test_settings_that_pass_the_engines_check_and_make_no_detector_are_a_failure(
    manager: Any, recorder: Recorder
) -> None:
    from vllm_omni.engine.duplex.turn_detection import validate_realtime_turn_detection

    settings = {"type": "server_vad", "prefix_padding_ms": None}
    assert validate_realtime_turn_detection({"turn_detection": settings}) is None
    control_of(manager, settings)
    assert recorder.only(VoiceFailed).reason == "settings"
    assert detection(recorder) == []


def test_update_of_a_session_says_whether_it_is_listened_to(
    manager: Any, recorder: Recorder
) -> None:
    from vllm_omni.engine.duplex import events
    from vllm_omni.engine.duplex.turn_detection import PendingTurnDetectionUpdate

    control = control_of(manager, None)
    for settings in ({"type": "server_vad"}, None):
        pending = PendingTurnDetectionUpdate.prepare({"turn_detection": settings})
        assert pending is not None
        control._config, control._detector = pending.commit(control._detector)
        manager._emit_raw(SESSION, events.SessionUpdated())
    assert detection(recorder) == [True, False]


#: What is read of each event.
FIELDS = {
    "AudioDelta": {"response_id", "delta", "format", "sample_rate_hz"},
    "ErrorEvent": {"code"},
    "InputCommitted": {"item_id", "details"},
    "Listen": {"details"},
    "OutputAudioCleared": {"response_id"},
    "PlaybackAcknowledged": {"details"},
    "ResponseCreated": {"response_id"},
    "ResponseDone": {"response_id", "response"},
    "SessionClosed": {"reason"},
    "SessionExpired": {"reason"},
    "SpeechStopped": {"item_id", "audio_end_ms"},
}


@pytest.mark.parametrize("name", FIELDS)
def test_events_have_what_is_read_of_them(name: str) -> None:
    from vllm_omni.engine.duplex import events

    fields = {field.name for field in dataclasses.fields(getattr(events, name))}
    assert FIELDS[name] <= fields
