"""Sessions of speech in and out at once, as the engine tells of them, and how each turn ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.conversation import RATE, SILENCE_MILLISECONDS, Conversation, Pool
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    BargeIn,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    StageFinished,
    StageSubmitted,
    StreamFinished,
    TurnFinished,
    TurnPlayed,
    TurnStarted,
)
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.testing import Recorder


@pytest.fixture
def talk(state: EngineState, clock: Any, recorder: Recorder) -> Conversation:
    """A session in which the client says when it has spoken."""
    conversation = Conversation(state, clock)
    conversation.open()
    return conversation


@pytest.fixture
def heard(state: EngineState, clock: Any, recorder: Recorder) -> Conversation:
    """A session in which the server hears when somebody has spoken."""
    conversation = Conversation(state, clock, silence=SILENCE_MILLISECONDS)
    conversation.open()
    return conversation


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(state: EngineState) -> Any:
    yield
    assert internal_errors.errors.counts() == {}
    sessions = [s for table in state.sessions.values() for s in table._by_id.values()]
    assert len(state.requests.by_id) == sum(len(session._open) for session in sessions)


def asked_by_commit(talk: Conversation) -> str:
    """The client says something and has it answered; the turn's id."""
    talk.speak()
    talk.send("Commit")
    talk.commit_is_taken()
    turn = talk.turn_starts()
    talk.stages_get(talk.engine_session.active_request_id)
    return turn


# What stays as it was


def test_engine_gets_what_it_would_get_without_us(talk: Conversation) -> None:
    event = talk.manager.calls[-1]
    assert event[0] == talk.session_id
    assert event[2] == 0
    assert talk.send("Commit") == "dispatched"
    assert talk.ask_for("resume") == "answered"
    assert talk.shut_down() == "stopped"


@pytest.mark.parametrize("name", ["AudioDelta", "ResponseDone", "InputCommitted", "SpeechStopped"])
def test_event_of_another_shape_reaches_the_client_and_is_counted(
    state: EngineState, heard: Conversation, name: str
) -> None:
    calls = len(heard.manager.calls)
    heard.tell(name)
    assert len(heard.manager.calls) == calls + 1
    assert internal_errors.errors.counts() == {"an event of a session": 1}
    internal_errors.errors = internal_errors.InternalErrors()


def test_event_that_nobody_knows_is_none_of_ours(talk: Conversation, recorder: Recorder) -> None:
    recorder.clear()
    talk.tell("OfTomorrow")
    assert recorder.events == []


# Turns


def test_turn_is_a_request_that_arrives_when_the_user_has_spoken(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    talk.speak()
    said_at = clock.now
    clock.advance(0.2)
    talk.send("Commit")
    committed_at = clock.now
    clock.advance(0.3)
    talk.commit_is_taken()
    turn = talk.turn_starts()
    arrived, started = recorder.only(RequestArrived), recorder.only(TurnStarted)
    assert arrived.arrived_at == committed_at
    assert arrived.external_request_id == turn == started.turn_id
    assert arrived.request_id == started.request_id == "duplex-s-turn1"
    assert arrived.modalities == ("text", "audio")
    assert (started.origin, started.deferred) == ("commit", False)
    talk.stages_get("duplex-s-turn1")
    clock.advance(1.0)
    talk.audio(turn)
    talk.turn_ends(turn)
    finished = recorder.only(TurnFinished)
    assert finished.latency_seconds == pytest.approx(1.3)
    assert finished.heard_latency_seconds == pytest.approx(1.5)
    assert finished.endpoint_delay_seconds is None
    assert said_at == pytest.approx(committed_at - 0.2)


def test_stages_of_a_turn_carry_its_model_and_its_request(
    talk: Conversation, state: EngineState, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    state.requests.stage_finished("duplex-s-turn1", 0, 0, "stop", 3, 7)
    talk.audio(turn)
    talk.turn_ends(turn)
    events: list[Any] = [*recorder.of(StageSubmitted), *recorder.of(StageFinished)]
    assert [(event.request_id, event.model_name) for event in events] == [
        ("duplex-s-turn1", "tiny")
    ] * 3


def test_audio_of_a_turn_is_heard_as_that_of_a_request(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    for seconds in (0.5, 0.4, 1.6):
        clock.advance(seconds)
        talk.audio(turn)
    talk.turn_ends(turn)
    packets = recorder.of(MediaPacket)
    assert [(p.index, p.samples, p.sample_rate, p.streamed) for p in packets] == [
        (index, RATE, RATE, True) for index in range(3)
    ]
    assert [(p.stage, p.replica) for p in packets] == [(1, 0)] * 3
    assert packets[0].since_arrival_seconds == pytest.approx(0.5)
    stream = recorder.only(StreamFinished)
    assert stream.ending == "smooth"
    assert stream.first_audible_seconds == pytest.approx(0.5)
    assert recorder.only(AudioFinished).samples == 3 * RATE
    assert recorder.only(TurnFinished).samples == 3 * RATE


def test_packets_are_new_audio_whatever_the_stage_hands_on(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)  # its stages are cumulative
    for samples in (100, 300, 400):
        talk.audio(turn, samples)
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [100, 300, 400]
    talk.turn_ends(turn)


def test_packet_that_is_not_pcm_counts_a_sample_for_each_byte(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn, 100, format="g711_ulaw", sample_rate_hz=8000)
    talk.turn_ends(turn)
    assert recorder.only(MediaPacket).samples == 200
    assert recorder.only(StreamFinished).unheard == "unknown_form"


@pytest.mark.parametrize(
    ("status", "reason", "outcome", "answered"),
    [
        ("completed", "stop", "stop", "stop"),
        ("completed", None, "stop", "stop"),
        ("cancelled", "turn_detected", "barge_in", "abort"),
        ("cancelled", "barge_in", "barge_in", "abort"),
        ("cancelled", "client_cancelled", "cancel", "abort"),
        ("cancelled", "output_audio_buffer_clear", "cancel", "abort"),
        ("failed", "runtime_append_failed", "error", "error"),
    ],
)
def test_outcome_of_a_turn_and_of_its_request(
    talk: Conversation,
    recorder: Recorder,
    status: str,
    reason: str | None,
    outcome: str,
    answered: str,
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.turn_ends(turn, status, reason)
    talk.turn_ends(turn)
    talk.close()
    assert recorder.only(TurnFinished).outcome == outcome
    finished = recorder.only(RequestFinished)
    assert finished.outcome == answered
    failures = {"abort": "client_abort", "error": "stage_error"}
    assert finished.failure == failures.get(answered)


def test_turn_that_a_token_limit_cut_short_says_so(
    talk: Conversation, state: EngineState, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    state.requests.stage_finished("duplex-s-turn1", 0, 0, "length", 3, 7)
    state.requests.stage_finished("duplex-s-turn1", 1, 0, "stop", 0, 7)
    talk.turn_ends(turn)
    assert recorder.only(TurnFinished).outcome == "length"
    assert recorder.only(RequestFinished).outcome == "length"


@pytest.mark.parametrize(
    ("word", "reason", "outcome"),
    [
        ("client_close", "client", "close"),
        ("disconnect_grace_expired", "disconnect", "abort"),
        ("idle_ttl_expired", "idle", "abort"),
        ("request_cleanup", "error", "error"),
        ("runtime_data_plane_failed", "error", "error"),
        ("of_tomorrow", "other", "error"),
    ],
)
def test_turn_ends_once_with_its_session(
    talk: Conversation, recorder: Recorder, word: str, reason: str, outcome: str
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.close(word, "SessionExpired" if "expired" in word else "SessionClosed")
    talk.turn_ends(turn)
    talk.close()
    assert recorder.only(TurnFinished).outcome == outcome
    assert recorder.only(SessionClosed).reason == reason
    assert recorder.only(SessionClosed).turns == 1


def test_turn_of_a_client_that_never_came_back_failed_for_its_disconnect(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.ask_for("touch", activity="detach")
    talk.close("disconnect_grace_expired", "SessionExpired")
    assert recorder.only(RequestFinished).failure == "client_disconnect"
    assert recorder.only(TurnFinished).detached


def test_server_that_ends_tells_of_each_session_and_turn(
    talk: Conversation, state: EngineState, clock: Any, recorder: Recorder
) -> None:
    asked_by_commit(talk)
    other = Conversation(state, clock, session_id="duplex-2", manager=talk.manager)
    other.open()
    talk.shut_down()
    assert [event.reason for event in recorder.of(SessionClosed)] == ["shutdown"] * 2
    assert recorder.only(TurnFinished).outcome == "abort"
    assert [len(sessions) for sessions in state.sessions.values()] == [0]


def test_text_turn_waits_since_it_was_asked_for_and_its_silence_is_no_broken_stream(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    talk.engine_session.response_config.modalities = ["text"]
    talk.send("CreateResponse")
    asked_at = clock.now
    clock.advance(0.5)
    turn = talk.turn_starts()
    talk.stages_get("duplex-s-turn1")
    talk.turn_ends(turn)
    assert recorder.only(RequestArrived).arrived_at == asked_at
    finished = recorder.only(TurnFinished)
    assert (finished.origin, finished.outcome, finished.latency_seconds) == (
        "request",
        "stop",
        None,
    )
    assert recorder.only(RequestFinished).outcome == "stop"
    assert recorder.of(StreamFinished) == []
    assert recorder.of(TurnPlayed) == []


def test_voiceless_answer_is_a_broken_stream_where_a_voice_was_asked_for(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.turn_ends(turn)
    assert recorder.only(StreamFinished).ending == "error"


def test_turn_whose_request_is_not_known_is_measured_all_the_same(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = talk.turn_starts(None)
    talk.audio(turn)
    talk.turn_ends(turn)
    assert recorder.only(RequestFinished).request_id == turn
    assert recorder.only(MediaPacket).replica == 0, "there is one that can have made it"


def test_audio_is_of_the_stage_that_makes_it_wherever_it_stands(
    state: EngineState, clock: Any, recorder: Recorder
) -> None:
    talk = Conversation(state, clock, pools=[Pool(0), Pool(1), Pool(2)])
    voice, last = talk.pools[1:]
    state.stages[voice], state.stages[last] = state.stages[last], state.stages[voice]
    talk.open()
    turn = talk.turn_starts()
    talk.audio(turn)
    talk.turn_ends(turn)
    assert recorder.only(MediaPacket).stage == 1


def test_packet_has_no_replica_where_any_of_several_may_have_made_it(
    state: EngineState, clock: Any, recorder: Recorder
) -> None:
    talk = Conversation(state, clock, pools=[Pool(0), Pool(1, replicas=2)])
    talk.open()
    turn = talk.turn_starts(None)
    talk.audio(turn)
    talk.turn_ends(turn)
    assert recorder.only(MediaPacket).replica is None


def test_two_turns_of_one_resident_request_end_each_by_itself(
    talk: Conversation, state: EngineState, recorder: Recorder
) -> None:
    state.requests.submitted("resident", 0, 0, None)  # before any turn
    first = talk.turn_starts("resident")
    second = talk.turn_starts("resident")
    for turn in (first, second):
        talk.audio(turn)
        talk.turn_ends(turn)
    third = talk.turn_starts("resident")
    binding = state.requests.bindings.of("resident")
    assert binding is not None
    assert binding.replica(0) == 0
    talk.turn_ends(third)
    ids = [event.request_id for event in recorder.of(RequestFinished)]
    assert ids == ["resident", second, "resident"]


# Since when the user waits


def test_server_that_heard_the_end_of_speech_knows_how_long_it_took_to_hear_it(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-1")
    heard.speak(8)
    said_at = clock.now
    heard.speak(5)
    clock.advance(0.0625)
    heard.tell("SpeechStopped", audio_end_ms=1300, item_id="item-1")
    heard_at = clock.now
    heard.commit_is_taken()
    turn = heard.turn_starts()
    clock.advance(0.25)
    heard.audio(turn)
    heard.turn_ends(turn)
    finished = recorder.only(TurnFinished)
    assert finished.origin == "speech"
    assert finished.latency_seconds == pytest.approx(0.25)
    assert finished.endpoint_delay_seconds == pytest.approx(heard_at - said_at)
    assert finished.heard_latency_seconds == pytest.approx(0.25 + heard_at - said_at)


def test_last_piece_with_speech_is_found_by_the_frames_that_the_detector_listens_in(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.speak(5)
    said_at = clock.now
    heard.speak(6)
    # The last frame with some of the 500 ms in it ends at 512, and 16 silent ones follow.
    heard.tell("SpeechStopped", audio_end_ms=1024, item_id="item-1")
    heard.commit_is_taken()
    heard.turn_ends(heard.turn_starts())
    delay = recorder.only(TurnFinished).endpoint_delay_seconds
    assert delay == pytest.approx(clock.now - said_at)


def test_end_of_speech_that_belongs_to_another_turn_is_not_taken_for_this_one(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.speak(8)
    heard.tell("SpeechStopped", audio_end_ms=800, item_id="ignored")
    clock.advance(3.0)
    heard.commit_is_taken("another")
    turn = heard.turn_starts()
    clock.advance(0.5)
    heard.audio(turn)
    heard.turn_ends(turn)
    finished = recorder.only(TurnFinished)
    assert finished.latency_seconds == pytest.approx(0.5)
    assert finished.heard_latency_seconds is None


def test_clients_commit_counts_though_the_engine_says_that_speech_has_stopped(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    talk.speak()
    talk.send("Commit")
    clock.advance(1.0)
    talk.tell("SpeechStopped", audio_end_ms=500, item_id="item-1")
    talk.commit_is_taken()
    turn = talk.turn_starts()
    talk.audio(turn)
    talk.turn_ends(turn)
    assert recorder.only(TurnFinished).origin == "commit"
    assert recorder.only(TurnFinished).latency_seconds == pytest.approx(1.0)


def test_commit_where_the_server_listens_too_counts_for_its_own_turn_alone(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.speak(13)
    heard.send("Commit")
    heard.tell("SpeechStopped", audio_end_ms=1300, item_id="item-1")
    heard.commit_is_taken("item-1")
    heard.turn_ends(heard.turn_starts())
    clock.advance(5.0)
    heard.turn_ends(heard.turn_starts())  # nobody said anything
    heard.speak(13)
    heard.tell("SpeechStopped", audio_end_ms=2600, item_id="item-2")
    heard.commit_is_taken("item-2")
    heard.turn_ends(heard.turn_starts())
    origins = [turn.origin for turn in recorder.of(TurnFinished)]
    assert origins == ["commit", "model", "speech"]


def test_engines_word_that_speech_has_stopped_is_nothing_where_the_server_does_not_listen(
    talk: Conversation, recorder: Recorder
) -> None:
    talk.speak()
    talk.tell("SpeechStopped", audio_end_ms=500, item_id="item-1")
    talk.commit_is_taken("item-1")
    talk.turn_ends(talk.turn_starts())
    assert recorder.only(TurnFinished).origin == "commit"


@pytest.mark.parametrize("said", ["Listen", "ErrorEvent"])
def test_commit_that_is_not_answered_is_no_beginning_of_a_later_turn(
    talk: Conversation, clock: Any, recorder: Recorder, said: str
) -> None:
    talk.send("Commit")
    if said == "Listen":
        talk.commit_is_taken()
    talk.tell(said, details={"reason": "silence_or_noise"}, code="bad_event")
    clock.advance(60.0)
    if said == "ErrorEvent":
        talk.commit_is_taken()
    else:
        talk.send("CreateResponse")
    turn = talk.turn_starts()
    clock.advance(0.5)
    talk.audio(turn)
    talk.turn_ends(turn)
    assert recorder.only(TurnFinished).latency_seconds == pytest.approx(0.5)


def test_turn_that_nobody_asked_for_has_no_latency(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = talk.turn_starts()
    clock.advance(0.5)
    talk.audio(turn)
    talk.turn_ends(turn)
    finished = recorder.only(TurnFinished)
    assert (finished.origin, finished.latency_seconds) == ("model", None)
    assert recorder.only(MediaPacket).since_arrival_seconds is None
    assert recorder.only(RequestFinished).end_to_end_seconds is None


def test_model_that_listens_on_does_not_undo_what_the_client_committed(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    talk.send("Commit")
    talk.commit_is_taken()
    for details in ({}, {"reason": "model_listens"}):
        talk.tell("Listen", details=details)
    talk.turn_ends(talk.turn_starts())
    assert recorder.only(TurnFinished).origin == "commit"


def test_turn_that_waited_for_an_earlier_answer_has_no_latency_of_its_own(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.speak(13)
    heard.tell("SpeechStopped", audio_end_ms=1300, item_id="item-1")
    heard.commit_is_taken(deferred=True)
    clock.advance(7.0)
    turn = heard.turn_starts()
    clock.advance(0.25)
    heard.audio(turn)
    heard.turn_ends(turn)
    finished = recorder.only(TurnFinished)
    assert finished.deferred
    assert finished.latency_seconds is finished.heard_latency_seconds is None
    assert finished.endpoint_delay_seconds == pytest.approx(0.5)
    assert recorder.only(MediaPacket).since_arrival_seconds == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("form", "rate", "size"),
    [
        ("pcm16", 16000, 3200),
        ("pcm16", 8000, 1600),
        ("pcm_f32le", 16000, 6400),
        ("g711_ulaw", None, 800),
    ],
)
def test_pieces_last_as_long_as_their_form_says(
    heard: Conversation, clock: Any, recorder: Recorder, form: str, rate: int | None, size: int
) -> None:
    heard.speak(8, audio=b"\0" * size, format=form, sample_rate_hz=rate)
    said_at = clock.now
    heard.speak(5, audio=b"\0" * size, format=form, sample_rate_hz=rate)
    heard.tell("SpeechStopped", audio_end_ms=1300, item_id="item-1")
    heard.commit_is_taken()
    turn = heard.turn_starts()
    heard.audio(turn)
    heard.turn_ends(turn)
    waited = recorder.only(TurnFinished).heard_latency_seconds
    assert waited == pytest.approx(clock.now - said_at)


# Interruptions


def test_speech_over_an_answer_is_a_barge_in_that_the_server_reacts_to(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = heard.turn_starts()
    heard.audio(turn)
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-2")
    clock.advance(0.125)
    heard.turn_ends(turn, "cancelled", "turn_detected")
    barge_in = recorder.only(BargeIn)
    assert (barge_in.turn_id, barge_in.cause, barge_in.generating) == (turn, "speech", True)
    assert barge_in.reaction_seconds == pytest.approx(0.125)


def test_clients_word_is_a_barge_in_and_an_earlier_speech_is_none(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-1")
    turn = heard.turn_starts()
    clock.advance(5.0)
    heard.send("BargeIn")
    clock.advance(0.25)
    heard.turn_ends(turn, "cancelled", "barge_in")
    assert recorder.only(BargeIn).reaction_seconds == pytest.approx(0.25)
    assert recorder.only(BargeIn).cause == "client"


def test_barge_in_without_a_cause_that_was_seen_has_no_time(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.tell("SpeechStarted", audio_start_ms=0, item_id="item-1")
    talk.turn_ends(turn, "cancelled", "barge_in")
    assert recorder.only(BargeIn).reaction_seconds is None


def test_interruption_of_what_is_only_being_played_is_told_once_and_changes_no_outcome(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = heard.turn_starts()
    heard.audio(turn, 4 * RATE)
    heard.turn_ends(turn)
    heard.played(turn, 1000)
    clock.advance(1.0)
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-2")
    clock.advance(0.25)
    heard.tell("OutputAudioCleared", response_id=turn)
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-3")
    heard.tell("OutputAudioCleared", response_id=turn)
    heard.close()
    barge_in = recorder.only(BargeIn)
    assert (barge_in.generating, barge_in.cause) == (False, "speech")
    assert barge_in.reaction_seconds == pytest.approx(0.25)
    assert recorder.only(TurnFinished).outcome == "stop"
    played = recorder.only(TurnPlayed)
    assert (played.acknowledged, played.discarded, played.unknown) == (RATE, 3 * RATE, 0)


def test_answer_that_must_be_over_is_not_interrupted_by_the_next_speech(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = heard.turn_starts()
    heard.audio(turn, RATE)
    heard.turn_ends(turn)
    clock.advance(1.5)  # nobody acknowledged, and the engine takes it for playing still
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-2")
    heard.tell("OutputAudioCleared", response_id=turn)
    heard.close()
    assert recorder.of(BargeIn) == []
    assert recorder.only(TurnPlayed).unknown == RATE


def test_answer_that_cannot_be_over_is_interrupted_though_nobody_acknowledged_any_of_it(
    heard: Conversation, clock: Any, recorder: Recorder
) -> None:
    turn = heard.turn_starts()
    heard.audio(turn, RATE)
    heard.turn_ends(turn)
    clock.advance(0.5)
    heard.tell("SpeechStarted", audio_start_ms=0, item_id="item-2")
    heard.tell("OutputAudioCleared", response_id=turn)
    heard.close()
    assert not recorder.only(BargeIn).generating
    assert recorder.only(TurnPlayed).unknown == RATE


def test_audio_that_is_cleared_in_mid_answer_ends_the_turn_once(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.tell("OutputAudioCleared", response_id=turn)
    talk.turn_ends(turn, "cancelled", "output_audio_buffer_clear")
    assert recorder.only(TurnFinished).outcome == "cancel"
    assert recorder.of(BargeIn) == []


# What becomes of the audio


def fates(recorder: Recorder) -> list[tuple[int, int, int]]:
    return [
        (played.acknowledged, played.discarded, played.unknown)
        for played in recorder.of(TurnPlayed)
    ]


def test_audio_is_unknown_unless_the_client_says_something(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.turn_ends(turn, "cancelled", "barge_in")
    assert fates(recorder) == []
    talk.close()
    assert fates(recorder) == [(0, 0, RATE)]
    assert not recorder.only(TurnPlayed).unheard


def test_audio_is_settled_as_soon_as_all_of_it_is_acknowledged(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn, RATE + 23)
    talk.played(turn, 1000)  # whole milliseconds of what has come; more may
    assert fates(recorder) == []
    talk.turn_ends(turn)
    assert fates(recorder) == [(RATE + 23, 0, 0)]
    talk.played(turn, 1000)
    talk.close()
    assert len(fates(recorder)) == 1


def test_most_that_was_acknowledged_counts_and_what_is_no_number_does_not(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    for milliseconds in (250, 500, 125, None, "1000"):
        talk.played(turn, milliseconds)
    talk.turn_ends(turn, "cancelled", "client_cancelled")
    talk.close()
    assert fates(recorder) == [(RATE // 2, RATE // 2, 0)]


def test_rest_of_a_complete_answer_is_unknown_and_not_discarded(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.turn_ends(turn)
    talk.played(turn, 250)
    talk.close()
    assert fates(recorder) == [(RATE // 4, 0, RATE * 3 // 4)]


def test_client_that_acknowledges_nothing_makes_nothing_grow(
    talk: Conversation, recorder: Recorder
) -> None:
    for _ in range(50):
        turn = talk.turn_starts()
        talk.audio(turn, 10)
        talk.turn_ends(turn)
    assert len(fates(recorder)) == 46
    talk.close()
    assert fates(recorder) == [(0, 0, 10)] * 50


def test_answer_to_a_client_that_was_gone_is_unheard_unless_it_comes_back(
    talk: Conversation, state: EngineState, clock: Any, recorder: Recorder
) -> None:
    for comes_back in (False, True):
        conversation = Conversation(
            state, clock, session_id=f"duplex-{comes_back}", manager=talk.manager
        )
        conversation.open()
        turn = conversation.turn_starts(None)
        conversation.audio(turn)
        conversation.ask_for("touch", activity="detach")
        conversation.turn_ends(turn)
        if comes_back:
            conversation.ask_for("resume")
        conversation.close("disconnect_grace_expired", "SessionExpired")
    assert [played.unheard for played in recorder.of(TurnPlayed)] == [True, False]
    assert [finished.detached for finished in recorder.of(TurnFinished)] == [True, True]


# Sessions


def test_session_is_told_from_its_opening_to_its_end(
    talk: Conversation, clock: Any, recorder: Recorder
) -> None:
    opened = recorder.only(SessionOpened)
    assert (opened.session_id, opened.model_name, opened.opened_at) == (
        talk.session_id,
        "tiny",
        clock.now,
    )
    clock.advance(12.5)
    talk.ask_for("touch", activity="heartbeat")
    assert recorder.of(SessionAttachment) == []
    for _ in range(2):
        talk.ask_for("touch", activity="detach")
    talk.ask_for("resume", ok=False)
    talk.close("idle_ttl_expired", "SessionExpired")
    assert [event.attached for event in recorder.of(SessionAttachment)] == [False]
    closed = recorder.only(SessionClosed)
    assert (closed.duration_seconds, closed.turns, closed.attached) == (12.5, 0, False)


def test_answer_that_was_over_before_its_client_left_was_not_unheard(
    talk: Conversation, recorder: Recorder
) -> None:
    turn = asked_by_commit(talk)
    talk.audio(turn)
    talk.turn_ends(turn)
    talk.ask_for("touch", activity="detach")
    talk.close("disconnect_grace_expired", "SessionExpired")
    assert not recorder.only(TurnPlayed).unheard


def test_turn_that_is_told_of_twice_begins_once(talk: Conversation, recorder: Recorder) -> None:
    turn = asked_by_commit(talk)
    talk.tell("ResponseCreated", response_id=turn)
    talk.turn_ends(turn)
    talk.close()
    assert len(recorder.of(TurnStarted)) == 1
    assert recorder.only(SessionClosed).turns == 1


def test_session_that_is_refused_is_none_and_an_open_one_goes_on(
    talk: Conversation, recorder: Recorder
) -> None:
    talk.ask_for("open", ok=False, error=RuntimeError("session_exists"))
    assert recorder.only(SessionRefused).code == "session_exists"
    assert recorder.of(SessionClosed) == []
    talk.manager.runners.clear()  # its opening was taken back after it had been told
    talk.ask_for("open", ok=False, error=RuntimeError("timeout"))
    assert recorder.only(SessionClosed).reason == "error"


def test_sessions_that_are_over_leave_nothing_behind(
    talk: Conversation, state: EngineState, clock: Any, recorder: Recorder
) -> None:
    for number in range(200):
        conversation = Conversation(
            state, clock, session_id=f"duplex-{number}", manager=talk.manager
        )
        conversation.open()
        turn = conversation.turn_starts(f"duplex-s-{number}")
        conversation.stages_get(f"duplex-s-{number}")
        conversation.audio(turn, 10)
        if number % 2:
            conversation.turn_ends(turn, "cancelled", "barge_in")
        conversation.close(("client_close", "disconnect_grace_expired")[number % 2])
    talk.close()
    assert [len(sessions) for sessions in state.sessions.values()] == [0]
    assert state.requests.by_id == {}
    assert len(state.requests.executions) == 0
    assert len(recorder.of(TurnFinished)) == len(recorder.of(TurnPlayed)) == 200


def test_model_has_the_name_that_its_families_carry_or_the_configured_one(
    state: EngineState, clock: Any, recorder: Recorder
) -> None:
    conversation = Conversation(state, clock)
    state.stages.clear()
    conversation.open()
    assert recorder.only(SessionOpened).model_name == "configured"
