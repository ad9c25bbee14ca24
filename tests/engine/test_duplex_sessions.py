"""Sessions of speech in and out at once, on the installed engine's own manager and events."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    BargeIn,
    MediaPacket,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TurnFinished,
    TurnPlayed,
)
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.duplex import told
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


#: What is read of each event.
FIELDS = {
    "AudioDelta": {"response_id", "delta", "format", "sample_rate_hz"},
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
