"""Sessions of speech in and out at once: a client that speaks in real time knows what it heard.

The vocoder pauses where an answer is to be cut short, so that it goes on long enough for that. The
last test ends a stage of the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from testbed.clients import audio
from testbed.clients.sessions import DETECTS_VOICE, ClosedError, Session, Turn
from testbed.server import Server
from tests.e2e.conftest import (
    ON,
    Pause,
    assert_times_agree,
    failures,
    is_idle,
    observing,
    outcomes,
    settled,
)
from tests.e2e.engine import TRAITS, engine_has
from vllm_omni_metrics_plugin.scrape import Scrape

_SESSIONS = "sessions of speech in and out at once"
pytestmark = pytest.mark.skipif(not engine_has(_SESSIONS), reason=TRAITS[_SESSIONS].otherwise)

MOST_SESSIONS = 3
INFERENCE = "voice_detection_inference_seconds"
RESUMING = "/v1/realtime?duplex=1&resume=1"
#: The first packet comes at once, the others are far apart.
AFTER_THE_FIRST = "0 " + "1.5 " * 20


@pytest.fixture(scope="module")
def server(logs: Path, pauses: Path) -> Iterator[Server]:
    def shorten(content: dict[str, Any]) -> None:
        content["duplex_session"].update(max_sessions=MOST_SESSIONS, disconnect_grace_s=3)
        content["stages"][1]["default_sampling_params"]["max_tokens"] = 48

    env = {**ON, "VLLM_OMNI_CPU_PAUSES": str(pauses)}
    with Server("duplex", env=env, deploy=shorten, log_path=logs / "duplex.log") as server:
        converse(server)
        yield server


def converse(server: Server, **settings: Any) -> Turn:
    """Say something, have it answered, and hear all of it."""
    with Session(server.url, **settings) as session:
        session.speak(0.5)
        session.commit()
        turn = session.done()
        session.acknowledge(turn)
    return turn


def outcome(turn: Turn) -> str:
    """As the client was told; it is not told whether a token limit ended it."""
    if turn.status == "completed":
        return "complete"
    interrupted = turn.reason in ("turn_detected", "barge_in")
    return {"cancelled": "barge_in" if interrupted else "cancel", "failed": "error"}[
        str(turn.status)
    ]


def turns(gained: Scrape) -> dict[str, float]:
    """By outcome; those that ended by themselves are one."""
    by_outcome = Counter(gained.by("vllm:omni_turns_total", "outcome"))
    by_outcome["complete"] = by_outcome.pop("stop", 0) + by_outcome.pop("length", 0)
    return {outcome: count for outcome, count in by_outcome.items() if count}


def fates(gained: Scrape) -> dict[str, float]:
    by_fate = gained.by("vllm:omni_turn_audio_samples_total", "fate")
    return {fate: samples for fate, samples in by_fate.items() if samples}


def closed(gained: Scrape) -> dict[str, float]:
    by_reason = gained.by("vllm:omni_sessions_closed_total", "reason")
    return {reason: count for reason, count in by_reason.items() if count}


def is_over(seen: Scrape) -> bool:
    """No session is open, and no turn."""
    return is_idle(seen) and not seen.sum("vllm:omni_sessions")


def assert_turns_agree(gained: Scrape, heard: Sequence[Turn], model: str) -> None:
    """Every count of turns that their client can make itself, exactly."""
    complete = [turn for turn in heard if outcome(turn) == "complete"]
    voiced = [turn for turn in heard if turn.samples]
    samples = sum(turn.samples for turn in heard)

    def count(family: str) -> float:
        return gained.sum(f"vllm:omni_{family}", model_name=model)

    said = {
        "turns": turns(gained),
        "requests": sum(outcomes(gained).values()),
        "aborted": outcomes(gained).get("abort", 0),
        "e2e": count("e2e_request_latency_seconds_count"),
        "samples": count("audio_frames_total"),
        "fates": sum(fates(gained).values()),
        "first packets": count("audio_ttfp_seconds_count"),
        "latencies": count("turn_latency_seconds_count"),
        "streams": count("audio_streams_total"),
        "interrupted": count("barge_in_reaction_seconds_count"),
        "missing": gained.sum("vllm:omni_metrics_missing_samples_total"),
        "internal errors": gained.sum("vllm:omni_metrics_internal_errors_total"),
    }
    cut_short = len(heard) - len(complete)
    assert said == {
        "turns": Counter(map(outcome, heard)),
        "requests": len(heard),
        "aborted": cut_short,
        "e2e": len(complete),
        "samples": samples,
        "fates": samples,
        "first packets": len(voiced),
        "latencies": len(voiced),
        "streams": len(voiced),
        "interrupted": sum(outcome(turn) == "barge_in" for turn in heard),
        "missing": 0,
        "internal errors": 0,
    }


def test_sessions_at_once_and_a_chat_beside_them_are_what_their_clients_heard(
    server: Server,
) -> None:
    with observing(server, is_over) as seen, ThreadPoolExecutor(MOST_SESSIONS) as pool:
        heard = list(pool.map(lambda _: converse(server), range(MOST_SESSIONS)))

    assert_turns_agree(seen.gained, heard, server.model)
    assert fates(seen.gained) == {"acknowledged": sum(turn.samples for turn in heard)}
    assert closed(seen.gained) == {"client": MOST_SESSIONS}
    assert is_over(seen.after)
    assert seen.gained.sum("vllm:omni_session_duration_seconds_count") == MOST_SESSIONS

    with observing(server, is_over) as seen:
        answer = audio.chat(server.url, modalities=("text", "audio"))
    assert sum(outcomes(seen.gained).values()) == 1
    assert seen.gained.sum("vllm:omni_audio_frames_total") == answer.samples > 0
    assert turns(seen.gained) == {}


def test_speech_over_an_answer_interrupts_it_and_is_answered_itself(
    server: Server, pause: Pause
) -> None:
    pause(AFTER_THE_FIRST)
    with observing(server, is_over) as seen:
        with Session(server.url, detects_voice=True) as session:
            session.speak(0.5)
            session.be_silent(0.8)
            first = session.audio()
            session.acknowledge(first, 100)
            session.speak(0.5)
            session.be_silent(0.8)
            pause("")
            session.done(2)
        heard = session.turns

    assert [outcome(turn) for turn in heard] == ["barge_in", "complete"]
    assert_turns_agree(seen.gained, heard, server.model)
    first, second = heard
    assert fates(seen.gained) == {
        "acknowledged": 2_400,
        "discarded": first.samples - 2_400,
        "unknown": second.samples,
    }
    for family in ("turn_endpoint_delay_seconds", "turn_heard_latency_seconds"):
        assert seen.gained.sum(f"vllm:omni_{family}_count") == 2, family
    # Each end of speech takes 3 frames with a voice and 16 without; 2.6 s have no more than 81.
    assert 2 * 19 <= seen.gained.sum(f"vllm:omni_{INFERENCE}_count") <= 81
    delay = seen.gained.sum("vllm:omni_turn_endpoint_delay_seconds_sum")
    waited = seen.gained.sum("vllm:omni_turn_heard_latency_seconds_sum")
    assert waited - seen.gained.sum("vllm:omni_turn_latency_seconds_sum") == pytest.approx(delay)


def test_every_frame_that_the_server_listens_to_is_timed(server: Server) -> None:
    # Silence alone, as the detector drops what is left over when a turn ends; 50 frames of 32 ms.
    frames = 50
    before = settled(server, is_over)
    with Session(server.url, detects_voice=True) as session:
        session.be_silent(frames * 0.032)

        def are_heard(seen: Scrape) -> bool:
            return (seen - before).sum(f"vllm:omni_{INFERENCE}_count") >= frames

        open_ = settled(server, are_heard)
    after = settled(server, is_over)
    gained = after - before

    assert open_.sum("vllm:omni_voice_detection_sessions") == 1
    assert after.sum("vllm:omni_voice_detection_sessions") == 0
    assert gained.sum(f"vllm:omni_{INFERENCE}_count") == frames
    assert gained.sum(f"vllm:omni_{INFERENCE}_sum") > 0
    assert gained.sum("vllm:omni_voice_detection_errors_total") == 0
    assert turns(gained) == {}


def test_settings_that_no_detector_can_be_made_of_are_counted(server: Server) -> None:
    refused = {**DETECTS_VOICE, "prefix_padding_ms": None}
    with observing(server, is_over) as seen, Session(server.url, detects_voice=True) as session:
        session.send("session.update", session={"turn_detection": refused})
        assert session.wait("error")["error"]["code"] == "unsupported_turn_detection"
        kept = settled(server, lambda now: now.sum("vllm:omni_voice_detection_sessions") == 1)

    assert kept.sum("vllm:omni_voice_detection_sessions") == 1
    failed = seen.gained.by("vllm:omni_voice_detection_errors_total", "reason")
    assert {reason: count for reason, count in failed.items() if count} == {"settings": 1}
    assert seen.after.sum("vllm:omni_voice_detection_sessions") == 0


def test_each_way_to_cut_an_answer_short_is_an_outcome(server: Server, pause: Pause) -> None:
    heard = []
    with observing(server, is_over) as seen:
        for word in ("barge_in", "response.cancel", "output_audio_buffer.clear"):
            pause(AFTER_THE_FIRST)
            with Session(server.url) as session:
                session.speak(0.5)
                session.commit()
                session.audio()
                session.send(word)
                heard.append(session.done())

    assert [outcome(turn) for turn in heard] == ["barge_in", "cancel", "cancel"]
    assert_turns_agree(seen.gained, heard, server.model)
    assert fates(seen.gained) == {"unknown": sum(turn.samples for turn in heard)}
    assert failures(seen.gained)["client_abort"] == 3
    assert seen.gained.by("vllm:omni_audio_streams_total", "ending").get("error", 0) == 0


def test_session_that_is_closed_in_mid_answer_ends_its_turn(server: Server, pause: Pause) -> None:
    pause(AFTER_THE_FIRST)
    with observing(server, is_over) as seen:
        with Session(server.url) as session:
            session.speak(0.5)
            session.commit()
            session.audio()
        [turn] = session.turns

    assert turn.status is None, "the client is not told of its turn's end"
    assert turns(seen.gained) == {"close": 1}
    assert outcomes(seen.gained)["abort"] == 1
    assert sum(fates(seen.gained).values()) == turn.samples
    assert closed(seen.gained) == {"client": 1}


def test_answer_in_text_is_a_turn_without_a_latency(server: Server) -> None:
    with observing(server, is_over) as seen:
        with Session(server.url, modalities=("text",)) as session:
            session.ask()
            session.done()
        heard = session.turns

    assert heard[0].text
    assert_turns_agree(seen.gained, heard, server.model)


def test_client_that_comes_back_has_heard_all(server: Server, pause: Pause) -> None:
    pause(AFTER_THE_FIRST)
    with observing(server, is_over) as seen:
        session = Session(server.url)
        session.speak(0.5)
        session.commit()
        before = session.audio()
        credentials = session.credentials()
        session.hang_up()
        with Session(server.url, resume=credentials, path=RESUMING) as again:
            pause("")
            rest = again.done()
            again.acknowledge(rest, before.milliseconds + rest.milliseconds)

    assert turns(seen.gained) == {"complete": 1}
    assert closed(seen.gained) == {"client": 1}
    assert seen.gained.sum("vllm:omni_audio_frames_total") == sum(fates(seen.gained).values())
    assert seen.gained.sum("vllm:omni_turns_unheard_total") == 0
    assert is_over(seen.after)


def test_client_that_hangs_up_and_stays_away_has_a_turn_that_nobody_heard(
    server: Server, pause: Pause
) -> None:
    pause(AFTER_THE_FIRST)
    with observing(server, is_over) as seen:
        session = Session(server.url)
        session.speak(0.5)
        session.commit()
        session.audio()
        session.hang_up()
        settled(server, lambda now: not now.sum("vllm:omni_sessions"))
    [turn] = session.turns

    # It is over when the client has been away for too long, unless the engine was done before.
    assert sum(turns(seen.gained).values()) == 1
    assert set(turns(seen.gained)) <= {"abort", "complete"}
    assert closed(seen.gained) == {"disconnect": 1}
    assert seen.gained.sum("vllm:omni_turns_unheard_total") == 1
    assert fates(seen.gained) == {"unknown": seen.gained.sum("vllm:omni_audio_frames_total")}
    assert fates(seen.gained)["unknown"] >= turn.samples


def test_one_session_too_many_is_refused(server: Server) -> None:
    with observing(server, is_over) as seen:
        sessions = [Session(server.url) for _ in range(MOST_SESSIONS)]
        with pytest.raises(ClosedError, match="capacity"):
            Session(server.url)
        for session in sessions:
            session.close()

    refused = seen.gained.by("vllm:omni_sessions_refused_total", "code")
    assert {code: count for code, count in refused.items() if count} == {"resource_exhausted": 1}
    assert closed(seen.gained) == {"client": MOST_SESSIONS}
    assert turns(seen.gained) == {}


def test_times_are_the_clients(server: Server, pause: Pause) -> None:
    def measure() -> list[tuple[float, float]]:
        pause(AFTER_THE_FIRST)
        with observing(server, is_over) as seen, Session(server.url, detects_voice=True) as session:
            session.speak(0.5)
            session.be_silent(0.7)
            first = session.audio().first_audio_at
            [stopped] = session.events("input_audio_buffer.speech_stopped")
            session.send("response.cancel")
            session.done()
        assert first is not None

        def server_says(family: str) -> float:
            return seen.gained.sum(f"vllm:omni_{family}_sum")

        return [
            (first - stopped["at"], server_says("turn_latency_seconds")),
            (first - session.spoke_at, server_says("turn_heard_latency_seconds")),
            (first - stopped["at"], server_says("audio_ttfp_seconds")),
        ]

    assert_times_agree(measure, apart_seconds=0.1, attempts=2)


def test_stage_that_dies_ends_the_turn_and_its_session(server: Server, pause: Pause) -> None:
    pause(AFTER_THE_FIRST)
    before = settled(server, is_over)
    session = Session(server.url)
    session.speak(0.5)
    session.commit()
    session.audio()
    server.kill_replica(2, 0)
    after = settled(server, is_over)
    gained = after - before

    assert is_over(after)
    assert turns(gained) == {"error": 1}
    assert outcomes(gained)["error"] == 1
    assert closed(gained) == {"error": 1}
    assert sum(fates(gained).values()) >= session.turns[0].samples > 0
