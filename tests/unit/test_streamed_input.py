"""A prompt that comes in pieces: it passes unchanged, and the client's own time is not ours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import numpy as np
import pytest

from tests.unit.feed import Feed
from tests.unit.open_requests import table_of
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    RequestFinished,
    StageFinished,
)
from vllm_omni_metrics_plugin.patches.streamed_input import ObservedPrompt, observed
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests, StreamedInput

SOUND = [{"audio": np.zeros(24000), "sr": 24000}]


# The prompt


def test_engine_gets_each_piece_as_the_same_object_and_in_order() -> None:
    pieces = [object(), object(), object()]

    async def speak() -> AsyncGenerator[object, None]:
        for piece in pieces:
            yield piece

    async def engine() -> list[object]:
        prompt, streamed = observed(speak())
        assert streamed is not None
        assert isinstance(prompt, AsyncGenerator), "the engine asks for that"
        return [piece async for piece in prompt]

    received = asyncio.run(engine())
    assert len(received) == 3
    assert all(one is other for one, other in zip(received, pieces, strict=True))


@pytest.mark.parametrize("prompt", ["hello", {"prompt": "hello"}, ["hello"], iter("hello")])
def test_prompt_that_is_there_is_left_alone(prompt: Any) -> None:
    passed, streamed = observed(prompt)
    assert passed is prompt
    assert streamed is None


def test_client_of_the_prompt_gets_what_the_engine_does_to_it() -> None:
    seen: list[Any] = []

    async def speak() -> AsyncGenerator[str, str]:
        try:
            seen.append((yield "first"))
            try:
                yield "second"
            except ValueError as error:
                seen.append(error)
            yield "third"
        finally:
            seen.append("closed")

    async def engine() -> None:
        prompt, _ = observed(speak())
        assert await prompt.asend(None) == "first"
        assert await prompt.asend("answer") == "second"
        error = ValueError("no")
        assert await prompt.athrow(error) == "third"
        await prompt.aclose()
        assert seen == ["answer", error, "closed"]

    asyncio.run(engine())


def test_exception_of_the_prompt_reaches_the_engine_as_the_same_object() -> None:
    error = OSError("the microphone failed")

    async def speak() -> AsyncGenerator[str, None]:
        yield "first"
        raise error

    async def engine() -> None:
        prompt, streamed = observed(speak())
        assert await anext(prompt) == "first"
        with pytest.raises(OSError, match="microphone") as raised:
            await anext(prompt)
        assert raised.value is error
        assert streamed is not None
        assert streamed.ended_at is None

    asyncio.run(engine())


def test_cancelling_the_engine_cancels_the_prompt() -> None:
    async def engine() -> None:
        cancelled = asyncio.Event()

        async def speak() -> AsyncGenerator[str, None]:
            try:
                await asyncio.sleep(60)
                yield "never"
            except asyncio.CancelledError:
                cancelled.set()
                raise

        prompt, _ = observed(speak())
        waiting = asyncio.ensure_future(anext(prompt))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert cancelled.is_set()

    asyncio.run(engine())


def test_prompt_is_an_async_generator_in_every_method() -> None:
    for name in ("asend", "athrow", "aclose"):
        assert inspect.iscoroutinefunction(getattr(ObservedPrompt, name))


# When it ends


def input_of(clock: Any, *steps: float | str) -> StreamedInput:
    """Numbers are seconds that the client lets pass, words are pieces; the engine takes 1 s each.

    Only where the client lets time pass does its generator wait.
    """

    async def speak() -> AsyncGenerator[str, None]:
        for step in steps:
            if isinstance(step, str):
                yield step
            else:
                await asyncio.sleep(0)
                clock.now += step

    async def engine() -> StreamedInput:
        prompt, streamed = observed(speak())
        async for _ in prompt:
            clock.now += 1.0
        assert streamed is not None
        return streamed

    return asyncio.run(engine())


def test_input_ends_with_its_last_piece_if_that_is_known_to_be_the_last(clock: Any) -> None:
    start = clock.now
    streamed = input_of(clock, 2.0, "a", 3.0, "b")
    assert streamed.began_at == start + 2.0
    assert streamed.ended_at == start + 2.0 + 1.0 + 3.0, "what the engine does with b is its time"


def test_input_ends_when_the_client_says_so_after_its_last_piece(clock: Any) -> None:
    start = clock.now
    streamed = input_of(clock, "a", 3.0, "b", 5.0)
    assert streamed.began_at == start
    assert streamed.ended_at == start + 1.0 + 3.0 + 1.0 + 5.0


def test_input_without_any_piece_ends_with_the_generator(clock: Any) -> None:
    start = clock.now
    streamed = input_of(clock, 4.0)
    assert (streamed.began_at, streamed.ended_at) == (start + 4.0, start + 4.0)
    assert input_of(clock).ended_at == start + 4.0


# What is measured


@pytest.fixture
def streamed_input() -> StreamedInput:
    return StreamedInput()


@pytest.fixture
def request_(hooks: Any, clock: Any, streamed_input: StreamedInput) -> Iterator[OpenRequest]:
    """A request that arrived 1 s before its first piece, which a stage starts 0.5 s later."""
    requests = OpenRequests(hooks)
    request = requests.begin("talk-1", "talk", "tiny", clock.now, streamed_input)
    clock.now += 1.0
    streamed_input.passes_on()
    clock.now += 0.5
    request.submitting(1, "delta")
    requests.submitted("talk-1", 1, 3, None)
    requests.started("talk-1", 1, 3, clock.now)
    yield request
    assert requests.by_id == {}


def finish(request: OpenRequest, reason: str = "stop") -> None:
    table_of(request).stage_finished("talk-1", 1, 3, reason, 0, 0)
    request.delivered = True
    request.end(None)


def test_client_waits_from_the_end_of_its_input(
    request_: OpenRequest, streamed_input: StreamedInput, clock: Any, recorder: Any
) -> None:
    clock.now += 10.0  # the client speaks
    streamed_input.waits()
    streamed_input.ends()
    clock.now += 0.25
    request_.audio_output(SOUND, 1, 3, finished=False)
    clock.now += 0.75
    request_.audio_output(SOUND, 1, 3, finished=True)
    finish(request_)

    first, second = recorder.of(MediaPacket)
    assert (first.since_arrival_seconds, second.since_arrival_seconds) == (0.25, 1.0)
    assert (first.during_input, second.during_input) == (False, False)
    assert recorder.only(StageFinished).generation_seconds == 1.0
    audio = recorder.only(AudioFinished)
    assert (audio.first_packet_seconds, audio.rtf, audio.during_input) == (0.25, 0.5, False)
    end = recorder.only(RequestFinished)
    assert (end.end_to_end_seconds, end.queue_seconds) == (1.0, 0.5)
    assert not end.during_input


def test_stage_that_is_given_the_request_after_the_input_works_from_then(
    request_: OpenRequest, streamed_input: StreamedInput, clock: Any, recorder: Any
) -> None:
    streamed_input.waits()
    streamed_input.ends()
    clock.now += 2.0
    request_.submitting(2, "delta")
    clock.now += 0.5
    table_of(request_).stage_finished("talk-1", 2, 0, "stop", 0, 0)
    assert recorder.only(StageFinished).generation_seconds == 0.5
    finish(request_)


def test_output_that_begins_before_the_input_ends_keeps_nobody_waiting(
    request_: OpenRequest, streamed_input: StreamedInput, clock: Any, recorder: Any
) -> None:
    clock.now += 3.0
    request_.audio_output(SOUND, 1, 3, finished=False)
    clock.now += 3.0
    streamed_input.waits()
    streamed_input.ends()
    clock.now += 1.0
    request_.audio_output(SOUND, 1, 3, finished=True)
    finish(request_)

    first, second = recorder.of(MediaPacket)
    assert (first.since_arrival_seconds, first.during_input) == (None, True)
    assert (second.since_arrival_seconds, second.during_input) == (1.0, False)
    audio = recorder.only(AudioFinished)
    assert (audio.first_packet_seconds, audio.rtf, audio.during_input) == (None, None, True)
    assert recorder.only(RequestFinished).end_to_end_seconds == 1.0


def test_request_that_ends_before_its_input_has_no_latency(
    request_: OpenRequest, clock: Any, recorder: Any
) -> None:
    clock.now += 3.0
    request_.audio_output(SOUND, 1, 3, finished=True)
    finish(request_)
    assert recorder.only(StageFinished).generation_seconds is None
    end = recorder.only(RequestFinished)
    assert (end.end_to_end_seconds, end.queue_seconds, end.during_input) == (None, 0.5, True)


def test_limit_that_cut_any_piece_decides(
    request_: OpenRequest, streamed_input: StreamedInput, recorder: Any
) -> None:
    table_of(request_).segment_finished("talk-1", 1, "length")
    table_of(request_).segment_finished("talk-1", 1, "stop")
    streamed_input.ends()
    request_.audio_output(SOUND, 1, 3, finished=True)
    finish(request_, "stop")
    assert recorder.only(RequestFinished).outcome == "length"
    assert recorder.only(StageFinished).finish_reason == "stop", "one event, of its end"


@pytest.mark.parametrize(("pieces", "tokens"), [(0, (12, 25)), (1, (None, None))])
def test_tokens_of_several_pieces_are_not_taken_for_those_of_the_last(
    request_: OpenRequest, recorder: Any, pieces: int, tokens: tuple[int | None, int | None]
) -> None:
    table = table_of(request_)
    for _ in range(pieces):
        table.segment_finished("talk-1", 1, "stop")
    table.stage_finished("talk-1", 1, 3, "stop", 12, 25)
    request_.end(None)
    finished = recorder.only(StageFinished)
    assert (finished.tokens_in, finished.tokens_out) == tokens


def test_samples_of_output_during_the_input_are_missing_and_say_why(
    feed: Feed, exposed: Any
) -> None:
    exposed.join()
    feed.arrive()
    feed.submit()
    feed.packet(index=0, since_arrival_seconds=None, during_input=True)
    feed.finish_audio(during_input=True)
    feed.finish(seconds=None, during_input=True)
    assert exposed.missing() == {
        (family, "during_input"): 1
        for family in ("audio_ttfp_seconds", "audio_rtf", "e2e_request_latency_seconds")
    }
