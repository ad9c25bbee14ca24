"""Three-stage chat, text and audio, by every endpoint that streams it."""

from __future__ import annotations

import base64
import functools
import io
import math
import struct
import wave
from collections.abc import Callable
from typing import Any

import pytest

from testbed.clients import audio, sockets
from testbed.clients.audio import Answer
from testbed.server import Server
from tests.e2e.conftest import (
    assert_counts_agree,
    assert_times_agree,
    is_idle,
    observing,
    outcomes,
)


@pytest.fixture(scope="module", autouse=True)
def warm(chat_server: Server) -> None:
    audio.chat(chat_server.url)


def test_counts_and_totals_of_mixed_chats_are_the_clients(chat_server: Server) -> None:
    calls = [
        functools.partial(audio.chat, chat_server.url, modalities=modalities, stream=stream)
        for modalities in (("text",), ("text", "audio"), ("audio",))
        for stream in (False, True)
    ]
    with observing(chat_server) as seen:
        answers = audio.together(calls, at_once=3)

    assert_counts_agree(seen.gained, answers, chat_server.model)
    assert set(seen.gained.by("vllm:omni_audio_frames_total", "stage")) == {"2"}


def test_tokens_are_those_of_the_clients_usage(chat_server: Server) -> None:
    calls = [
        functools.partial(
            audio.chat, chat_server.url, text, modalities=modalities, stream=stream, tokens=tokens
        )
        for text, tokens in (("hello there", 8), ("hello there, and a good deal more", 16))
        for modalities in (("text",), ("text", "audio"))
        for stream in (False, True)
    ]
    with observing(chat_server) as seen:
        answers = audio.together(calls, at_once=3)

    usage = [(answer.prompt_tokens, answer.completion_tokens) for answer in answers]
    print(usage)
    assert all(prompt and completion for prompt, completion in usage), answers
    labels = {"model_name": chat_server.model}
    prompts = seen.gained.by("vllm:omni_prompt_tokens_total", "stage", **labels)
    generated = seen.gained.by("vllm:omni_generation_tokens_total", "stage", **labels)
    print(prompts, generated)
    assert prompts == {"0": sum(prompt or 0 for prompt, _ in usage)}
    assert generated["0"] == sum(completion or 0 for _, completion in usage)
    # No client is told what the talker makes; vLLM's own statistics count it, too.
    engines = seen.gained.by("vllm:generation_tokens_total", "stage")
    assert {stage: generated[stage] for stage in ("0", "1")} == {
        stage: engines[stage] for stage in ("0", "1")
    }
    assert seen.gained.sum("vllm:omni_metrics_missing_samples_total") == 0


def about(hertz: int) -> list[dict[str, Any]]:
    """A message with half a second of a tone in it."""
    recording = io.BytesIO()
    with wave.open(recording, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        tone = (int(8000 * math.sin(math.tau * hertz * n / 16000)) for n in range(8000))
        file.writeframes(struct.pack("<8000h", *tone))
    url = f"data:audio/wav;base64,{base64.b64encode(recording.getvalue()).decode()}"
    said = [{"type": "audio_url", "audio_url": {"url": url}}, {"type": "text", "text": "what?"}]
    return [{"role": "user", "content": said}]


def test_cache_of_processed_inputs_shows_its_lookups(chat_server: Server) -> None:
    # A recording that comes again is found. vLLM's own server counts alike.
    recordings = [200, 200, 400, 200]
    with observing(chat_server) as seen:
        answers = [
            audio.chat(chat_server.url, modalities=("text",), messages=about(recording))
            for recording in recordings
        ]

    assert [answer.status for answer in answers] == [200] * len(recordings), answers
    lookups = ("vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total")
    shown = {name: seen.gained.by(name, "stage") for name in lookups}
    assert shown == {lookups[0]: {"0": 4}, lookups[1]: {"0": 2}}


def _streams() -> dict[str, Callable[[Server], Answer]]:
    return {
        "chat": lambda server: audio.chat(server.url, stream=True),
        "realtime": lambda server: sockets.realtime(server.url, server.model),
        "video chat": lambda server: sockets.video_chat(server.url),
    }


@pytest.mark.parametrize("endpoint", _streams())
def test_first_packet_is_timed_once_on_every_endpoint(chat_server: Server, endpoint: str) -> None:
    ask = _streams()[endpoint]
    ask(chat_server)  # the first of its kind decodes pictures and sound for the first time

    def measure() -> list[tuple[float, float]]:
        with observing(chat_server) as seen:
            answer = ask(chat_server)
        assert answer.error is None
        assert seen.gained.sum("vllm:omni_audio_ttfp_seconds_count") == 1, answer
        assert sum(outcomes(seen.gained).values()) == 1
        assert answer.first_audio_seconds is not None
        first = seen.gained.sum("vllm:omni_audio_ttfp_seconds_sum", stage="2", replica="0")
        return [(answer.first_audio_seconds, first)]

    # The websockets do not pass on when they were asked: decoding pictures and sound is not in it.
    assert_times_agree(measure, apart_seconds=0.015 if endpoint == "chat" else 0.06)


def test_time_in_which_the_client_speaks_is_not_ours(chat_server: Server) -> None:
    def measure() -> list[tuple[float, float]]:
        with observing(chat_server) as seen:
            answer = sockets.realtime(chat_server.url, chat_server.model, pause_seconds=2.0)
        assert answer.error is None
        assert sum(outcomes(seen.gained).values()) == 1
        assert answer.first_audio_seconds is not None
        gained = seen.gained
        assert gained.sum("vllm:omni_metrics_missing_samples_total") == 0
        assert gained.sum("vllm:omni_request_queue_time_seconds_sum") < 2.0
        rtf = gained.sum("vllm:omni_audio_rtf_sum", stage="2", replica="0")
        played = gained.sum("vllm:omni_audio_duration_seconds_sum", stage="2", replica="0")
        assert 0 < rtf * played < answer.total_seconds + 0.1, "generation, without the pause"
        return [
            (
                answer.first_audio_seconds,
                gained.sum("vllm:omni_audio_ttfp_seconds_sum", stage="2", replica="0"),
            ),
            (answer.total_seconds, gained.sum("vllm:omni_e2e_request_latency_seconds_sum")),
        ]

    # Closing the websocket is in the client's total.
    assert_times_agree(measure, apart_seconds=0.1)


def test_output_that_begins_while_the_client_speaks_has_no_ttfp(chat_server: Server) -> None:
    with observing(chat_server) as seen:
        answer = sockets.realtime(
            chat_server.url, chat_server.model, seconds=5.5, pause_seconds=4.0
        )

    assert answer.error is None
    gained = seen.gained
    assert sum(outcomes(gained).values()) == 1
    for family in ("audio_ttfp_seconds", "audio_rtf"):
        assert gained.sum(f"vllm:omni_{family}_count") == 0
        assert (
            gained.sum(
                "vllm:omni_metrics_missing_samples_total",
                family=f"vllm:omni_{family}",
                reason="during_input",
            )
            == 1
        ), gained
    assert gained.sum("vllm:omni_e2e_request_latency_seconds_count") == 1
    latency = gained.sum("vllm:omni_e2e_request_latency_seconds_sum")
    assert 0 < latency < answer.total_seconds + 0.1


@pytest.mark.parametrize("endpoint", ["chat", "realtime", "video chat"])
def test_listener_who_hangs_up_in_the_middle_is_an_abort(
    chat_server: Server, endpoint: str
) -> None:
    ask: dict[str, Callable[[], Answer]] = {
        "chat": lambda: audio.chat(chat_server.url, stream=True, hang_up_after_packets=1),
        "realtime": lambda: sockets.realtime(
            chat_server.url, chat_server.model, hang_up_after_packets=1
        ),
        "video chat": lambda: sockets.video_chat(chat_server.url, hang_up_after_packets=1),
    }
    with observing(chat_server) as seen:
        answer = ask[endpoint]()

    assert answer.hung_up
    assert outcomes(seen.gained) == {"abort": 1}
    assert is_idle(seen.after)


def test_text_alone_makes_no_audio_samples(chat_server: Server) -> None:
    with observing(chat_server) as seen:
        audio.chat(chat_server.url, modalities=("text",), stream=True)

    assert sum(outcomes(seen.gained).values()) == 1
    assert seen.gained.sum("vllm:omni_audio_frames_total") == 0
    assert seen.gained.sum("vllm:omni_metrics_missing_samples_total") == 0
