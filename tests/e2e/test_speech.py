"""Two-stage speech with two replicas of the second stage: every number against the client's."""

from __future__ import annotations

import functools
import itertools
import json
import time
import urllib.request

import pytest

from testbed.clients import audio, sockets
from testbed.clients.audio import Answer, together
from testbed.server import Server
from tests.e2e.backlog import assert_queue_takes_what_the_backlog_says
from tests.e2e.conftest import (
    OF_SESSIONS,
    Observation,
    Series,
    assert_counts_agree,
    assert_times_agree,
    doctor,
    is_idle,
    is_running,
    observing,
    outcomes,
    series,
    settled,
    watching,
)
from tests.e2e.engine import engine_has
from vllm_omni_metrics_plugin.requests.executions import LATE_SECONDS
from vllm_omni_metrics_plugin.scrape import scrape

#: What the speech endpoint answers to a failure of its own.
FAILED = 500 if engine_has("speech that fails is answered with 500") else 400


@pytest.fixture(scope="module", autouse=True)
def warm(speech_server: Server) -> None:
    """The very first request of each replica pays for things that no later one does."""
    for _ in range(2):
        audio.speech(speech_server.url)


def test_counts_and_totals_of_mixed_requests_are_the_clients(speech_server: Server) -> None:
    url = speech_server.url
    calls = [
        functools.partial(audio.speech, url, f"text {n}", tokens=tokens, stream=stream)
        for n, tokens in enumerate((2, 12, 24, 40))
        for stream in (None, "audio", "sse")
    ]
    calls += [functools.partial(sockets.speech, url, tokens=tokens) for tokens in (2, 17, 30)]

    with observing(speech_server) as seen:
        answers = audio.together(calls, at_once=6)

    assert_counts_agree(seen.gained, answers, speech_server.model)


def test_each_replica_counts_exactly_what_it_said(speech_server: Server) -> None:
    # Requests one after the other alternate between the replicas, so each replica says one of
    # the two groups; the lengths tell them apart.
    with observing(speech_server) as seen:
        kinds: list[tuple[int, audio.Stream | None]] = [(10, "audio"), (33, None)]
        answers = [
            audio.speech(speech_server.url, tokens=tokens, stream=stream)
            for tokens, stream in kinds * 4
        ]

    groups = answers[0::2], answers[1::2]
    short, long = (sum(answer.samples for answer in group) for group in groups)
    frames = seen.gained.by("vllm:omni_audio_frames_total", "replica", stage="1")
    assert sorted(frames.values()) == [short, long]
    replica_of = {frames[replica]: replica for replica in frames}

    for group, first_packets in zip(groups, (4, 0), strict=True):
        replica = {"stage": "1", "replica": replica_of[sum(a.samples for a in group)]}
        durations = seen.gained.sum("vllm:omni_audio_duration_seconds_sum", **replica)
        assert durations == pytest.approx(sum(answer.audio_seconds for answer in group))
        for family, expected in (
            ("audio_duration_seconds_count", 4),
            ("audio_rtf_count", 4),
            ("audio_ttfp_seconds_count", first_packets),
        ):
            assert seen.gained.sum(f"vllm:omni_{family}", **replica) == expected, family


@pytest.mark.parametrize("how", ["whole", "audio", "sse", "websocket"])
def test_times_of_each_request_are_the_clients(speech_server: Server, how: str) -> None:
    url = speech_server.url
    ask = {
        "whole": functools.partial(audio.speech, url, tokens=24),
        "audio": functools.partial(audio.speech, url, tokens=24, stream="audio"),
        "sse": functools.partial(audio.speech, url, tokens=24, stream="sse"),
        "websocket": functools.partial(sockets.speech, url, tokens=24),
    }[how]

    def measure() -> list[tuple[float, float]]:
        with observing(speech_server) as seen:
            answer = ask()
        end_to_end = seen.gained.sum("vllm:omni_e2e_request_latency_seconds_sum")
        pairs = [(answer.total_seconds, end_to_end)]
        if answer.first_audio_seconds is None:
            assert seen.gained.sum("vllm:omni_audio_ttfp_seconds_count") == 0
        else:
            first = seen.gained.sum("vllm:omni_audio_ttfp_seconds_sum")
            pairs.append((answer.first_audio_seconds, first))
        rtf = seen.gained.sum("vllm:omni_audio_rtf_sum")
        assert 0 < rtf * answer.audio_seconds < answer.total_seconds
        queued = seen.gained.sum("vllm:omni_request_queue_time_seconds_sum")
        assert 0 < queued < end_to_end
        return pairs

    assert_times_agree(measure)


def test_speech_that_ends_with_its_text_ends_with_stop(speech_server: Server) -> None:
    with observing(speech_server) as whole:
        answer = audio.speech(speech_server.url, tokens=200, non_streaming_mode=False)
    assert 0 < answer.samples < 199 * 1920
    assert outcomes(whole.gained) == {"stop": 1}


def test_speech_cut_by_its_token_limit_ends_with_length(speech_server: Server) -> None:
    with observing(speech_server) as cut:
        answer = audio.speech(speech_server.url, tokens=5, stream="audio")
    assert answer.samples == 4 * 1920, "five codec tokens are four packets of sound"
    assert outcomes(cut.gained) == {"length": 1}


@pytest.mark.parametrize(
    "ask",
    [
        functools.partial(audio.speech, stream="audio", hang_up_after_packets=1),
        functools.partial(audio.speech, stream="sse", hang_up_after_packets=2),
        functools.partial(sockets.speech, hang_up_after_packets=1),
    ],
    ids=["raw stream", "server-sent events", "websocket"],
)
def test_listener_who_hangs_up_is_counted_once_as_abort(
    speech_server: Server, ask: functools.partial[Answer]
) -> None:
    with observing(speech_server) as seen:
        answer = ask(speech_server.url, tokens=250)

    assert_one_abort(seen, answer)


def test_listener_who_gives_up_waiting_for_the_whole_is_counted_once_as_abort(
    speech_server: Server,
) -> None:
    with observing(speech_server) as seen:
        answer = audio.speech(
            speech_server.url, tokens=250, hang_up_when=lambda: is_running(speech_server)
        )

    assert_one_abort(seen, answer)


def assert_one_abort(seen: Observation, answer: Answer) -> None:

    assert answer.hung_up
    assert outcomes(seen.gained) == {"abort": 1}
    assert is_idle(seen.after)
    streamed = answer.first_audio_seconds is not None
    assert seen.gained.sum("vllm:omni_audio_ttfp_seconds_count") == streamed
    assert seen.gained.sum("vllm:omni_audio_frames_total") >= answer.samples
    for family in ("e2e_request_latency_seconds", "audio_duration_seconds", "audio_rtf"):
        assert seen.gained.sum(f"vllm:omni_{family}_count") == 0, family


@pytest.mark.parametrize("stream", [None, "audio"])
def test_refused_request_is_not_counted(speech_server: Server, stream: audio.Stream) -> None:
    with observing(speech_server) as seen:
        answers = [
            audio.speech(speech_server.url, "", stream=stream),
            audio.speech(speech_server.url, voice="nobody", stream=stream),
            audio.chat(speech_server.url),
        ]

    assert [answer.status for answer in answers] == [400, 400, 400], answers
    assert outcomes(seen.gained) == {}
    assert seen.gained.sum("vllm:omni_request_queue_time_seconds_count") == 0


def test_request_that_fails_in_the_server_is_counted_once_as_error(speech_server: Server) -> None:
    with observing(speech_server) as seen:
        answer = audio.speech(speech_server.url, "x" * 3000)

    assert answer.status == FAILED, answer
    assert outcomes(seen.gained) == {"error" if FAILED == 500 else "rejected": 1}


def test_waiting_and_running_requests_are_seen_while_they_are_there(speech_server: Server) -> None:
    request = urllib.request.Request(
        f"{speech_server.url}/v1/audio/speech",
        json.dumps(
            {
                "input": "hello",
                "voice": "vivian",
                "max_new_tokens": 900,
                "response_format": "pcm",
                "stream": True,
                "stream_format": "audio",
            }
        ).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read(1)
        during = scrape(speech_server.url)

    assert during.sum("vllm:omni_num_requests_running") == 1
    assert during.sum("vllm:omni_num_requests_waiting") == 0


def test_every_stage_says_who_executes_and_who_waits_there(speech_server: Server) -> None:
    count = 30
    speak = functools.partial(audio.speech, speech_server.url, tokens=24, stream="audio")
    empty = functools.partial(audio.speech, speech_server.url, tokens=1, stream="audio")
    with observing(speech_server) as seen, watching(speech_server) as loads:
        answers = together([speak] * (count - 1) + [empty], at_once=count)
        # A vocoder that gets nothing never starts, which is certain only when no start can come.
        time.sleep(LATE_SECONDS + 1.0)

    assert {answer.status for answer in answers} == {200}, answers
    for load in loads:
        stages = [load.stages[key] for key in load.stages]
        assert load.whole.running <= sum(stage.running for stage in stages), load
        assert load.whole.running >= max(stage.running for stage in stages), load
    for earlier, load in itertools.pairwise(loads):
        # A scrape reads its gauges first, so what ends while it goes on is among the ended only.
        assert load.whole.running + load.whole.waiting <= count - earlier.ended, (earlier, load)
    talker = [load.stages["0", "0"] for load in loads]
    # Four at a time; outputs are on their way for a moment when the next are admitted already, and
    # four may end before the next are.
    executing = [stage.running for stage in talker if stage.waiting]
    assert max(executing, default=0) > 0, "no scrape saw one wait behind another"
    assert max(executing) <= 2 * 4, executing
    idle = [load.whole for earlier, load in itertools.pairwise(loads) if earlier.ended == count]
    assert set(idle) <= {(0, 0)}, idle

    gained = seen.gained

    def of(family: str, stage: str) -> float:
        return gained.sum(f"vllm:omni_stage_{family}_time_seconds_sum", stage=stage)

    for stage in ("0", "1"):
        assert gained.sum("vllm:omni_stage_generation_time_seconds_count", stage=stage) == count
        assert gained.sum("vllm:omni_stage_queue_time_seconds_count", stage=stage) == count
        assert gained.sum("vllm:omni_stage_execute_time_seconds_count", stage=stage) == count
    inputs = gained.sum("vllm:omni_stage_input_wait_seconds_sum", stage="1")
    assert of("queue", "0") + of("execute", "0") == pytest.approx(of("generation", "0"), rel=0.02)
    assert inputs + of("queue", "1") + of("execute", "1") == pytest.approx(
        of("generation", "1"), rel=0.02
    )
    assert inputs > of("queue", "0"), "no vocoder has its first chunk before the talker began"
    waited = gained.sum("vllm:omni_request_queue_time_seconds_sum")
    assert of("queue", "0") <= waited < sum(answer.total_seconds for answer in answers)
    assert gained.sum("vllm:omni_metrics_missing_samples_total") == gained.sum(
        "vllm:omni_metrics_missing_samples_total", reason="empty_audio"
    )


def test_stage_info_names_every_replica(speech_server: Server) -> None:
    seen = scrape(speech_server.url)
    members = {
        (labels["stage"], labels["replica"], labels["stage_name"], labels["stage_type"])
        for labels in seen.label_sets("vllm:omni_stage_info")
    }
    assert {(stage, replica) for stage, replica, _, _ in members} == {
        ("0", "0"),
        ("1", "0"),
        ("1", "1"),
    }
    assert ("1", "1", "code2wav", "llm") in members
    assert {(int(s), int(r)) for s, r, _, _ in members} == set(speech_server.stage_processes())


def test_every_seam_that_has_a_place_is_reported_as_applied(speech_server: Server) -> None:
    reported = {
        labels["patch"]: labels["status"]
        for labels in scrape(speech_server.url).label_sets("vllm:omni_metrics_patch_info")
    }
    assert reported
    waiting = {patch for patch, status in reported.items() if status == "deferred"}
    # Without diffusion and sessions, and outside of a batch script, these have no place.
    without_place = {"denoising", "denoising_stepwise", "offline_batch"}
    sessions = {patch for patch in reported if patch.startswith(OF_SESSIONS)}
    assert without_place <= waiting <= without_place | sessions
    assert set(reported.values()) == {"applied", "deferred"}, reported


def test_queue_of_long_and_short_texts_takes_what_the_backlog_says(speech_server: Server) -> None:
    assert_queue_takes_what_the_backlog_says(
        speech_server,
        [
            functools.partial(
                audio.speech, speech_server.url, "la " * tokens, tokens=tokens, stream="audio"
            )
            for tokens in (8, 24, 48) * 4
        ],
    )


def test_doctor_finds_nothing_wrong_with_all_that_was_said(speech_server: Server) -> None:
    packets = {}
    kinds: tuple[audio.Stream | None, ...] = (None, "audio")
    for stream in kinds:
        with observing(speech_server) as seen:
            audio.speech(speech_server.url, tokens=24, stream=stream)
        packets[stream] = seen.gained.sum(
            "vllm:omni_metrics_events_total", hook="omni_media_packet"
        )
    # By this the doctor tells those apart whose first packet has a time.
    assert packets[None] == 1 < packets["audio"], packets

    status, report = doctor(speech_server)

    wrong = [finding for finding in report["findings"] if finding["severity"] != "note"]
    assert (status, wrong) == (0, [])
    available = {family["name"]: family["available"] for family in report["families"]}
    assert available["vllm:omni_audio_ttfp_seconds"] == "yes"
    assert available["vllm:omni_diffusion_steps_total"] == "not yet"
    applied = {p["name"] for p in report["patches"] if p["status"] == "applied"}
    assert {"generate", "stat_logger", "connectors"} <= applied


def test_series_after_all_that_was_said_are_those_before_the_first_word(
    speech_server: Server, first_series: dict[str, set[Series]]
) -> None:
    first = first_series[speech_server.url]
    assert series(settled(speech_server, is_idle)) == first
    edges = {labels for name, labels in first if name == "vllm:omni_transfer_size_bytes_count"}
    assert len(edges) == 2, "from the one talker to each of two vocoders"
