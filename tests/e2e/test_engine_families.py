"""vLLM's own ``vllm:*`` families on real servers: whose number is it, and is it true when idle."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter

import pytest

from testbed.clients import audio
from testbed.server import Server
from tests.e2e.conftest import assert_engines_idle, observing, outcomes, replicas
from vllm_omni_metrics_plugin.scrape import scrape

#: What the tiny talker's vocoder makes of every codec token but the first.
SAMPLES_PER_TOKEN = 1920


@pytest.fixture(scope="module", autouse=True)
def warm(speech_server: Server) -> None:
    for _ in range(2):
        audio.speech(speech_server.url)


def test_no_family_keeps_an_engine_label(speech_server: Server) -> None:
    seen = scrape(speech_server.url)
    families = {name for name in seen.names("vllm:") if not name.startswith("vllm:omni_")}
    assert len(families) > 80, "the sample names of some 40 families"
    for name in families:
        for labels in seen.label_sets(name):
            assert "engine" not in labels, name
            if "stage" in labels:
                assert (labels["stage"], labels["replica"]) in replicas(speech_server), name


def test_each_engine_shows_its_own_cache_configuration(speech_server: Server) -> None:
    shown = scrape(speech_server.url).named("vllm:cache_config_info")
    members = [(info.labels["stage"], info.labels["replica"]) for info in shown]
    assert sorted(members) == sorted(replicas(speech_server)), "once each"
    assert {info.value for info in shown} == {1}
    blocks = {
        member: int(info.labels["num_gpu_blocks"])
        for member, info in zip(members, shown, strict=True)
    }
    assert min(blocks.values()) > 0, blocks
    assert blocks["1", "0"] == blocks["1", "1"], "equal engines, each with its own blocks"
    assert blocks["0", "0"] != blocks["1", "0"], "the vocoder's engine is another one"


def test_sums_per_replica_are_what_the_client_counted(speech_server: Server) -> None:
    with observing(speech_server) as seen:
        answers = [
            audio.speech(speech_server.url, tokens=tokens, stream="audio")
            for tokens in (10, 20) * 3
        ]
    gained = seen.gained

    talker = {"stage": "0", "replica": "0"}
    tokens = sum(answer.samples // SAMPLES_PER_TOKEN + 1 for answer in answers)
    assert gained.sum("vllm:generation_tokens_total", **talker) == tokens
    assert gained.sum("vllm:time_to_first_token_seconds_count", **talker) == len(answers)
    prompt = gained.sum("vllm:prompt_tokens_total", **talker)
    assert prompt > 0
    assert prompt % len(answers) == 0, "the same text each time"

    vocoders = gained.by("vllm:request_success_total", "replica", stage="1")
    assert vocoders == {"0": 3, "1": 3}, "one request after the other takes turns"
    assert gained.by("vllm:time_to_first_token_seconds_count", "replica", stage="1") == vocoders
    assert set(gained.by("vllm:prompt_tokens_total", "replica", stage="1")) == {"0", "1"}
    assert gained.sum("vllm:request_success_total", **talker) == len(answers)


def test_tokens_of_a_chat_are_those_the_server_billed(chat_server: Server) -> None:
    with observing(chat_server) as seen:
        answers = audio.together(
            [
                functools.partial(audio.chat, chat_server.url, text, stream=stream)
                for text in ("hello", "a longer question")
                for stream in (False, True)
            ],
            at_once=2,
        )
    thinker = {"stage": "0", "replica": "0"}
    for name, billed in (
        ("vllm:prompt_tokens_total", [answer.prompt_tokens for answer in answers]),
        ("vllm:generation_tokens_total", [answer.completion_tokens for answer in answers]),
    ):
        assert None not in billed, answers
        assert seen.gained.sum(name, **thinker) == sum(count or 0 for count in billed), name


def test_finish_reasons_of_a_text_chat_are_the_clients(chat_server: Server) -> None:
    ask = functools.partial(audio.chat, chat_server.url, modalities=("text",), tokens=12)
    whole = ask()
    assert whole.finish_reasons == ("length",)
    with observing(chat_server) as seen:
        answers = [ask(), ask(stop_token_ids=list(range(256, 320))), ask(stream=True)]
    reasons = Counter(reason for answer in answers for reason in answer.finish_reasons)
    assert set(reasons) == {"stop", "length"}, "the stop tokens stop the one that has them"
    assert seen.gained.by("vllm:request_success_total", "finished_reason") == reasons
    assert seen.gained.by("vllm:omni_requests_success_total", "finished_reason") == reasons


def test_gauges_are_zero_after_the_last_of_many_requests(speech_server: Server) -> None:
    seen_busy = threading.Event()

    def ask_until_seen() -> None:
        while not seen_busy.is_set():
            audio.speech(speech_server.url, tokens=60, stream="audio")

    askers = [threading.Thread(target=ask_until_seen) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        wait_until_busy(speech_server)
    finally:
        seen_busy.set()
        for asker in askers:
            asker.join()
    assert_engines_idle(speech_server)


def test_gauges_are_zero_after_an_abort(speech_server: Server) -> None:
    answer = audio.speech(
        speech_server.url, tokens=900, hang_up_when=lambda: wait_until_busy(speech_server)
    )
    assert answer.hung_up
    assert_engines_idle(speech_server)


def test_gauges_are_zero_after_a_request_that_failed(speech_server: Server) -> None:
    with observing(speech_server) as seen:
        audio.speech(speech_server.url, "x" * 3000)
    assert outcomes(seen.gained) == {"error": 1}
    assert_engines_idle(speech_server)


def wait_until_busy(server: Server) -> bool:
    """True once the load was seen: else 0 afterwards would say nothing."""
    deadline = time.monotonic() + 30
    while not scrape(server.url).sum("vllm:num_requests_running", stage="0"):
        assert time.monotonic() < deadline, "the load was never seen"
        time.sleep(0.1)
    return True
