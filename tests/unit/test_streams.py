"""A response with streamed audio: when it begins, what each player heard, how it ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feed import Feed
from tests.unit.open_requests import table_of
from vllm_omni_metrics_plugin.hooks import HookRegistry, StreamFinished
from vllm_omni_metrics_plugin.media.playback import ENDINGS
from vllm_omni_metrics_plugin.requests import Exchange, OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.testing import HookHarness, Recorder

TALKER, VOCODER = 0, 1


def sound(seconds: float, rate: int | None = 24_000) -> list[dict[str, Any]]:
    rates = {} if rate is None else {"sr": rate}
    return [{"audio": SimpleNamespace(shape=(int(seconds * 24_000),)), **rates}]


@pytest.fixture
def request_(hooks: Any, clock: Any, recorder: Any) -> OpenRequest:
    assert recorder.events == [], "somebody listens before it begins"
    return begin(OpenRequests(hooks), clock.now)


def begin(requests: OpenRequests, at: float, delivery: Any = "delta") -> OpenRequest:
    request = requests.begin("a", "a", "tiny", at)
    request.delivered = True
    for stage in (TALKER, VOCODER):
        request.submitting(stage, delivery, makes_audio=stage == VOCODER)
        requests.submitted("a", stage, 3, None)
    return request


def test_stream_is_heard_by_each_of_its_players(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    request_.audio_output(sound(0.1), VOCODER, 3, finished=False)
    clock.now += 0.5  # 0.4 s too late
    request_.audio_output(sound(1.0), VOCODER, 3, finished=True)
    request_.end(None)

    stream = recorder.only(StreamFinished)
    assert (stream.stage, stream.replica, stream.ending) == (VOCODER, 3, "stalled")
    assert stream.underrun_seconds == pytest.approx(0.4)
    at_once, buffered = stream.players
    assert (at_once.buffer_seconds, at_once.stalls) == (0.0, 1)
    silence = (at_once.stall_seconds, at_once.longest_stall_seconds)
    assert silence == pytest.approx((0.4, 0.4))
    assert at_once.first_stall_at_seconds == pytest.approx(0.1)
    assert at_once.played_seconds == pytest.approx(1.1)
    assert (buffered.buffer_seconds, buffered.stalls) == (0.2, 0), "it had not started"


@pytest.mark.parametrize("delivery", ["final", None])
def test_whole_answer_is_no_stream(hooks: Any, recorder: Any, clock: Any, delivery: Any) -> None:
    request = begin(OpenRequests(hooks), clock.now, delivery)
    request.audio_output(sound(1.0), VOCODER, 3, finished=True)
    request.end(None)
    assert recorder.of(StreamFinished) == []


def test_parts_of_a_stage_without_a_delivery_are_a_stream(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    request = begin(OpenRequests(hooks), clock.now, None)
    request.audio_output(sound(1.0), VOCODER, 3, finished=False)
    request.end(None)
    assert recorder.only(StreamFinished).ending == "smooth"


def test_client_that_leaves_before_the_first_sound_ends_a_stream(
    request_: OpenRequest, recorder: Any
) -> None:
    request_.end(GeneratorExit())
    stream = recorder.only(StreamFinished)
    assert (stream.ending, stream.replica) == ("left_before_audio", 3)
    assert (stream.underrun_seconds, stream.players) == (None, ())


def test_client_that_leaves_after_the_engine_is_done_leaves_then(
    request_: OpenRequest, recorder: Any, clock: Any
) -> None:
    exchange = Exchange("http")
    request_.answers(exchange)
    request_.audio_output(sound(1.0), VOCODER, 3, finished=True)
    request_.end(None)
    clock.now += 3.0
    exchange.leaves()
    exchange.ends()
    stream = recorder.only(StreamFinished)
    assert stream.ending == "left_stalled"
    assert stream.players[0].played_seconds == pytest.approx(1.0)
    assert stream.players[0].stall_seconds == pytest.approx(2.0)


@pytest.mark.parametrize("packets", [0, 2])
def test_response_that_breaks_off_is_an_error(
    request_: OpenRequest, recorder: Any, packets: int
) -> None:
    for _ in range(packets):
        request_.audio_output(sound(0.5), VOCODER, 3, finished=False)
    request_.end(RuntimeError("a stage died"))
    stream = recorder.only(StreamFinished)
    assert stream.ending == "error"
    assert bool(stream.players) == bool(packets)


def test_sound_that_is_answered_with_a_refusal_is_an_error(
    request_: OpenRequest, recorder: Any
) -> None:
    exchange = Exchange("http")
    request_.answers(exchange)
    request_.audio_output(sound(1.0), VOCODER, 3, finished=True)
    request_.end(None)
    exchange.status = 400
    exchange.completes()
    exchange.ends()
    assert recorder.only(StreamFinished).ending == "error"


def test_audio_of_unknown_length_has_no_ending(request_: OpenRequest, recorder: Any) -> None:
    request_.audio_output(sound(0.5, rate=None), VOCODER, 3, finished=True)
    request_.end(None)
    stream = recorder.only(StreamFinished)
    assert (stream.ending, stream.underrun_seconds, stream.players) == (None, None, ())


def test_nothing_is_kept_for_nobody(clock: Any) -> None:
    request = begin(OpenRequests(HookRegistry().hooks), clock.now)
    request.audio_output(sound(0.5), VOCODER, 3, finished=True)
    assert request.streams == {}
    request.end(None)


STEPS = st.lists(st.sampled_from(["packet", "wait", "leaves", "fails", "ends"]), max_size=12)


@given(STEPS)
def test_every_stream_that_begins_ends_once_in_any_order(steps: list[str]) -> None:
    recorder = Recorder()
    with HookHarness() as harness:
        harness.register(recorder)
        request = begin(OpenRequests(harness.hooks), 0.0)
        for step in (*steps, "ends"):
            if step == "packet":
                request.audio_output(sound(0.1), VOCODER, 3, finished=False)
            elif step == "leaves":
                request.end(GeneratorExit())
            elif step == "fails":
                request.end(RuntimeError())
            elif step == "ends":
                request.end(None)
        assert table_of(request).by_id == {}
    assert recorder.only(StreamFinished).ending in ENDINGS


# What is published


def test_endings_add_up_to_the_streams(feed: Feed, exposed: Any) -> None:
    exposed.join(replica=3, makes=("audio",))
    for ending in (*ENDINGS, "smooth"):
        feed.finish_stream(ending=ending)
    labels = {"model_name": "tiny", "stage": "1", "replica": "3"}
    name = "audio_streams_total"
    shown = {ending: exposed.value(name, **labels, ending=ending) for ending in ENDINGS}
    assert shown == {**dict.fromkeys(ENDINGS, 1), "smooth": 2}
    assert exposed.value("audio_underrun_seconds_count", **labels) == 7
    player = {**labels, "player": "0"}
    assert exposed.value("audio_stalls_total", **player) == 7
    assert exposed.value("audio_stall_seconds_total", **player) == pytest.approx(2.8)
    assert exposed.value("audio_played_seconds_total", **player) == 14
    assert exposed.value("audio_longest_stall_seconds_count", **player) == 7


def test_series_of_each_player_stand_at_0_from_the_join(exposed: Any) -> None:
    exposed.join(replica=3, makes=("audio",))
    labels = {"model_name": "tiny", "stage": "1", "replica": "3"}
    for player in ("0", "0.2"):
        assert exposed.value("audio_stalls_total", **labels, player=player) == 0
    assert exposed.value("audio_underrun_seconds_count", **labels) == 0


def test_stream_without_a_replica_or_a_length_is_missing_and_says_why(
    feed: Feed, exposed: Any
) -> None:
    exposed.join(replica=3, makes=("audio",))
    feed.finish_stream(replica=None)
    feed.finish_stream(ending=None, underrun_seconds=None, players=())
    family = "audio_streams_total"
    missing = {key: value for key, value in exposed.missing().items() if key[0] == family}
    assert missing == {(family, "unknown_replica"): 1, (family, "no_sample_rate"): 1}
