"""One replica, whole outputs between the stages, ``--disable-log-stats``: the same truth."""

from __future__ import annotations

import functools

from testbed.clients import audio
from testbed.server import Server
from tests.e2e.conftest import assert_counts_agree, is_running, observing, outcomes


def test_families_carry_data_with_the_engines_statistics_off(quiet_server: Server) -> None:
    calls = [
        functools.partial(audio.speech, quiet_server.url, tokens=tokens, stream=stream)
        for tokens in (6, 20)
        for stream in (None, "audio", "sse")
    ]
    with observing(quiet_server) as seen:
        answers = audio.together(calls, at_once=3)

    # Without async chunks Qwen3-TTS makes the whole waveform before its endpoint streams any of it.
    assert_counts_agree(seen.gained, answers, quiet_server.model, engine_streams=False)


def test_hang_up_between_whole_outputs_is_an_abort(quiet_server: Server) -> None:
    with observing(quiet_server) as seen:
        answer = audio.speech(
            quiet_server.url, tokens=250, hang_up_when=lambda: is_running(quiet_server)
        )
    assert answer.hung_up
    assert outcomes(seen.gained) == {"abort": 1}


def test_engine_families_are_alive_and_the_tables_of_the_switch_stay_off(
    quiet_server: Server,
) -> None:
    with observing(quiet_server) as seen:
        answers = [audio.speech(quiet_server.url, tokens=10) for _ in range(2)]

    assert seen.gained.by("vllm:request_success_total", "stage") == {"0": 2, "1": 2}
    assert seen.gained.sum("vllm:time_to_first_token_seconds_count", stage="0") == len(answers)
    for direction in ("prompt_tokens_total", "generation_tokens_total"):
        engines = seen.gained.sum(f"vllm:{direction}", stage="0")
        assert seen.gained.sum(f"vllm:omni_{direction}", stage="0") == engines > 0, direction
    assert "Overall Summary" not in quiet_server.log_path.read_text()
