"""A websocket's input of several sentences: as many requests, one stream for its listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_client_patch import Engine, speech
from tests.unit.test_http_patch import Call, event, serve, wrap
from vllm_omni_metrics_plugin.hooks import RequestFinished, StreamFinished
from vllm_omni_metrics_plugin.media.playback import ENDINGS
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests import OpenRequests, Utterance
from vllm_omni_metrics_plugin.requests.stream import Maker, Waited
from vllm_omni_metrics_plugin.testing import HookHarness, Recorder

SENTENCES = "/v1/audio/speech/stream"
DONE = '{"type":"session.done","utterance_index":0,"total_sentences":2}'
ERROR = '{"type":"error","message":"no"}'
SECOND = 24_000
VOCODER = 1

Endpoint = Callable[[Call], Awaitable[None]]
Converse = Callable[..., list[StreamFinished]]


@pytest.fixture
def converse(
    monkeypatch: pytest.MonkeyPatch, state: EngineState, recorder: Recorder, clock: Any
) -> Converse:
    """Serves a websocket with an endpoint; the streams that its listener heard."""
    wrap(monkeypatch, state)

    def converse(endpoint: Endpoint, path: str = SENTENCES) -> list[StreamFinished]:
        asyncio.run(serve(endpoint, websocket=True, path=path))
        return recorder.of(StreamFinished)

    return converse


async def sentence(call: Call, *outputs: Any, said: str = '{"type":"audio.done"}') -> None:
    await call.outputs(*outputs or (speech(SECOND), speech(0, finished=True)))
    await call.send(event(said))


def test_gap_between_two_sentences_is_heard(
    converse: Converse, recorder: Recorder, clock: Any
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        clock.advance(1.75)
        await sentence(call, speech(SECOND, replica_id=5), speech(0, finished=True, replica_id=5))
        assert recorder.of(StreamFinished) == []
        await call.send(event(DONE))
        assert len(recorder.of(StreamFinished)) == 1

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("stalled", 2)
    assert stream.underrun_seconds == pytest.approx(0.75)
    at_once = stream.players[0]
    assert at_once.stalls == 1
    assert at_once.played_seconds == pytest.approx(2.0)
    requests = recorder.of(RequestFinished)
    assert [request.outcome for request in requests] == ["stop", "stop"]
    assert (stream.request_id, stream.replica) == (requests[-1].request_id, 5)


@pytest.mark.parametrize("done", [DONE, DONE.replace(":", ": ")])
def test_each_input_of_a_websocket_is_a_stream(converse: Converse, clock: Any, done: str) -> None:
    async def endpoint(call: Call) -> None:
        for sentences in (1, 3):
            for _ in range(sentences):
                await sentence(call)
            await call.send(event(done))
            clock.advance(10.0)  # nobody says anything
        await call.leave()
        await call.receive()

    first, second = converse(endpoint)
    assert (first.requests, second.requests) == (1, 3)
    assert (first.ending, second.ending) == ("smooth", "smooth")
    assert second.players[0].played_seconds == pytest.approx(3.0)


def test_requests_of_other_websockets_are_streams_of_their_own(
    converse: Converse,
) -> None:
    async def endpoint(call: Call) -> None:
        for _ in range(2):
            await sentence(call)
        await call.send(event(DONE))

    assert [stream.requests for stream in converse(endpoint, "/v1/realtime")] == [1, 1]


@pytest.mark.parametrize(("later", "ending"), [(0.5, "left_playing"), (3.0, "left_stalled")])
def test_client_who_leaves_between_two_sentences_leaves_once(
    converse: Converse,
    recorder: Recorder,
    clock: Any,
    later: float,
    ending: str,
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        clock.advance(later)
        await call.leave()
        await call.receive()
        assert len(recorder.of(StreamFinished)) == 1, "nothing more is awaited"

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == (ending, 1)
    assert recorder.only(RequestFinished).outcome == "stop"


def test_client_who_leaves_within_a_sentence_leaves_once(
    converse: Converse, recorder: Recorder, clock: Any
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)

        generated = Engine(*[speech(SECOND)] * 2).generate("hello")
        await generated.__anext__()
        clock.advance(0.5)
        await call.leave()
        try:
            await call.send({"type": "websocket.send", "bytes": b"sound"})
        finally:
            await generated.aclose()

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("left_playing", 2)
    assert stream.players[0].played_seconds == pytest.approx(0.5)
    assert [request.outcome for request in recorder.of(RequestFinished)] == ["stop", "abort"]


def test_sentence_that_begins_after_its_client_left_is_no_second_stream(
    converse: Converse, recorder: Recorder
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        await call.leave()
        await call.receive()
        await call.outputs(speech(SECOND), speech(0, finished=True))

    assert len(converse(endpoint)) == 1
    assert [request.outcome for request in recorder.of(RequestFinished)] == ["stop", "abort"]


def test_sentence_that_fails_breaks_the_utterance_off_even_if_the_next_one_does_not(
    converse: Converse, recorder: Recorder
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call, said=ERROR)
        await sentence(call)
        await call.send(event(DONE))

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("error", 2)
    assert stream.players[0].played_seconds == pytest.approx(2.0)
    assert [request.outcome for request in recorder.of(RequestFinished)] == ["error", "stop"]


def test_mistake_that_breaks_nothing_off_is_none_of_the_listeners(
    converse: Converse,
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        await call.send(event(ERROR))  # of a type that the endpoint does not know
        await sentence(call)
        await call.send(event(DONE))

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("smooth", 2)


def test_client_who_leaves_after_a_sentence_failed_heard_an_error(
    converse: Converse, clock: Any
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call, said=ERROR)
        clock.advance(0.5)
        await call.leave()
        await call.receive()

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("error", 1)


def test_mistake_is_over_when_the_next_sentence_begins(converse: Converse, clock: Any) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        await call.send(event(ERROR))
        await sentence(call)
        clock.advance(0.5)
        await call.send({"type": "websocket.close", "code": 1000})

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == ("left_playing", 2)


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        ({"type": "websocket.close", "code": 1000}, "left_stalled"),
        ({"type": "websocket.close"}, "left_stalled"),
        (event(ERROR), "error"),  # nothing was said for too long
        ({"type": "websocket.close", "code": 1011}, "error"),
        (None, "error"),  # the endpoint raises
    ],
    ids=["asked to", "no code", "idle", "failed", "raised"],
)
def test_utterance_that_is_never_complete_ends_with_its_websocket(
    converse: Converse, clock: Any, last: Any, ending: str
) -> None:
    async def endpoint(call: Call) -> None:
        await sentence(call)
        clock.advance(3.0)
        if last is None:
            raise OSError("no")
        await call.send(last)

    (stream,) = converse(endpoint)
    assert (stream.ending, stream.requests) == (ending, 1)


def test_engine_that_goes_on_after_the_websocket_ends_the_utterance(
    converse: Converse, recorder: Recorder
) -> None:
    hanging = []

    async def endpoint(call: Call) -> None:
        await sentence(call)
        generated = Engine(speech(SECOND), speech(0, finished=True)).generate("hello")
        await generated.__anext__()
        hanging.append(generated)

    async def run() -> None:
        await serve(endpoint, websocket=True, path=SENTENCES)
        assert recorder.of(StreamFinished) == []
        await hanging[0].aclose()

    asyncio.run(run())
    stream = recorder.only(StreamFinished)
    assert (stream.ending, stream.requests) == ("left_playing", 2)


def test_whole_answers_to_sentences_are_no_stream(
    converse: Converse,
) -> None:
    async def endpoint(call: Call) -> None:
        for _ in range(2):
            await sentence(call, speech(SECOND, finished=True))
        await call.send(event(DONE))

    assert converse(endpoint) == []


OVER: dict[str, Callable[[Utterance], None]] = {
    "done": Utterance.completes,
    "leaves": Utterance.leaves,
    "breaks off": lambda utterance: utterance.breaks_off(failed=False),
}
OUTCOMES = {"stops": "stop", "fails": "error", "aborts": "abort"}


@given(st.lists(st.sampled_from(["begins", "told", *OUTCOMES, *OVER]), max_size=14))
def test_utterance_with_a_request_ends_once_in_any_order(steps: list[str]) -> None:
    recorder = Recorder()
    with HookHarness() as harness:
        harness.register(recorder)
        utterance = Utterance(OpenRequests(harness.hooks, (0.0,)))
        now_open = 0
        begun_in_time = is_over = False
        for step in (*steps, "done"):
            if step == "begins":
                now_open += 1
                begun_in_time = begun_in_time or not is_over
                utterance.begins(Waited(0.0))
                utterance.stream(VOCODER).packet(0.0, SECOND, SECOND)
            elif step == "told":
                utterance.tells(error=True)
            elif step in OVER:
                is_over = True
                OVER[step](utterance)
            elif now_open:
                now_open -= 1
                utterance.settles(OUTCOMES[step], [Maker("a", "tiny", VOCODER, 0)])
        for _ in range(now_open):
            utterance.settles("stop", [Maker("a", "tiny", VOCODER, 0)])
    endings = [stream.ending for stream in recorder.of(StreamFinished)]
    assert len(endings) == begun_in_time
    assert set(endings) <= set(ENDINGS)
