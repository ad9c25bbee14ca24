"""Players that run dry are told of while the silence lasts."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import (
    HookRegistry,
    MediaPacket,
    PlaybackStalled,
    StreamFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.media.playback import SHORTEST_STALL, Playback
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.requests.stalls import Watched

VOCODER = 1
#: Of a packet that is played soon.
SHORT = 0.02
#: Until then a busy machine has done anything.
SECONDS = 30.0


def begin(requests: OpenRequests, request_id: str = "a", replica: int | None = 3) -> OpenRequest:
    request = requests.begin(request_id, request_id, "tiny", time.monotonic())
    request.delivered = True
    request.submitting(VOCODER, "delta", makes_audio=True)
    if replica is not None:
        requests.submitted(request_id, VOCODER, replica, None)
    return request


def packet(request: OpenRequest, seconds: float, rate: int | None = 24_000) -> None:
    rates = {} if rate is None else {"sr": rate}
    audio = SimpleNamespace(shape=(round(seconds * 24_000),), is_cpu=False)
    request.audio_output([{"audio": audio, **rates}], VOCODER, None, finished=False)


def timers(requests: OpenRequests) -> list[Any]:
    return list(requests.stalls._timers.values())


async def told(recorder: Any, times: int) -> list[PlaybackStalled]:
    deadline = time.monotonic() + SECONDS
    while len(recorder.of(PlaybackStalled)) < times:
        assert time.monotonic() < deadline, recorder.events
        await asyncio.sleep(0.001)
    events: list[PlaybackStalled] = recorder.of(PlaybackStalled)
    return events


def on_a_loop(
    hooks: Any,
    story: Callable[[OpenRequests], Awaitable[None]],
    players: tuple[float, ...] = (0.0,),
) -> OpenRequests:
    requests = OpenRequests(hooks, players)

    async def run() -> None:
        await story(requests)

    asyncio.run(run())
    return requests


def test_stall_is_told_before_any_packet_ends_it(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        request = begin(requests)
        packet(request, SHORT)
        [stalled] = await told(recorder, 1)
        [first] = recorder.of(MediaPacket)
        assert (stalled.request_id, stalled.model_name) == ("a", "tiny")
        assert (stalled.stage, stalled.replica, stalled.buffer_seconds) == (VOCODER, 3, 0.0)
        assert stalled.stalled_at == pytest.approx(first.left_at + SHORT)
        assert stalled.played_seconds == pytest.approx(SHORT)
        packet(request, SHORT)
        _, again = await told(recorder, 2)
        assert again.played_seconds == pytest.approx(2 * SHORT)
        assert again.stalled_at == pytest.approx(recorder.of(MediaPacket)[1].left_at + SHORT)
        request.end(RuntimeError("a stage died"))
        assert recorder.only(StreamFinished).players[0].stalls == 2

    on_a_loop(hooks, story)


def test_silence_goes_on_and_is_told_once(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        patient = begin(requests)
        packet(patient, SHORT)
        await told(recorder, 1)
        packet(patient, SHORT / 4)  # too little for its buffer
        # Another stream's later stall comes by the same timer.
        packet(begin(requests, "b"), SHORT)
        events = await told(recorder, 2)
        assert [event.request_id for event in events] == ["a", "b"]

    on_a_loop(hooks, story, players=(SHORT,))


def test_each_player_tells_of_its_own(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        request = begin(requests)
        packet(request, SHORT / 2)
        await asyncio.sleep(SHORT)
        packet(request, SHORT / 2)  # fills the buffer of the second player
        events = await told(recorder, 3)
        assert sorted(event.buffer_seconds for event in events) == [0.0, 0.0, SHORT]
        played = [e.played_seconds for e in events if e.buffer_seconds]
        assert played == [pytest.approx(SHORT)]

    on_a_loop(hooks, story, players=(0.0, SHORT))


def test_one_timer_serves_all_streams(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        loop = asyncio.get_running_loop()
        calls: list[float] = []
        later = loop.call_later

        def call_later(delay: float, *args: Any) -> Any:
            calls.append(delay)
            return later(delay, *args)

        loop.call_later = call_later  # type: ignore[method-assign,assignment]
        open_ = [begin(requests, f"r{number}") for number in range(50)]
        for _ in range(4):
            for request in open_:
                packet(request, 100.0)
        assert len(calls) == 1, "packets that move the moment on do not touch it"
        [timer] = timers(requests)
        assert len(timer._heap) == 50
        for request in open_:
            request.end(None)
        assert (timer._heap, timer._handle) == ([], None)

    on_a_loop(hooks, story)
    assert recorder.of(PlaybackStalled) == []


def test_stream_that_is_over_is_told_of_no_more(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        over, goes_on = begin(requests, "over"), begin(requests, "goes on")
        packet(over, SHORT)
        packet(goes_on, 2 * SHORT)
        over.end(None)
        [stalled] = await told(recorder, 1)
        assert stalled.request_id == "goes on"

    on_a_loop(hooks, story)


@pytest.mark.parametrize(
    ("error", "stalls"), [(GeneratorExit(), 1), (RuntimeError(), 1), (None, 0)]
)
def test_silence_in_which_a_stream_is_cut_short_is_told_and_the_end_is_not(
    hooks: Any, recorder: Any, clock: Any, error: BaseException | None, stalls: int
) -> None:
    requests = OpenRequests(hooks, (0.0,))
    request = begin(requests)
    packet(request, 1.0)
    clock.now += 2.0
    request.end(error)
    assert len(recorder.of(PlaybackStalled)) == stalls
    assert recorder.only(StreamFinished).players[0].stalls == stalls


def test_packet_finds_the_stall_that_it_ends_where_there_is_no_loop(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    request = begin(OpenRequests(hooks, (0.0, 0.5)))
    packet(request, 1.0)
    for late in (0.4, 0.5):  # the second player goes on with two packets
        clock.now += 1.0 + late
        packet(request, 0.4)
    events = recorder.of(PlaybackStalled)
    stalls = [(e.buffer_seconds, e.stalled_at, e.played_seconds) for e in events]
    began = 1000.0
    assert stalls == [
        (0.0, pytest.approx(began + 1.0), pytest.approx(1.0)),
        (0.5, pytest.approx(began + 1.0), pytest.approx(1.0)),
        (0.0, pytest.approx(began + 1.8), pytest.approx(1.4)),
    ]
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(PlaybackStalled) < len(kinds) - 1 - kinds[::-1].index(MediaPacket)
    request.end(None)
    assert recorder.only(StreamFinished).players[0].stalls == 2


def test_silence_under_a_millisecond_is_no_stall(hooks: Any, recorder: Any, clock: Any) -> None:
    request = begin(OpenRequests(hooks, (0.0,)))
    packet(request, 1.0)
    clock.now += 1.0 + SHORTEST_STALL * 0.9
    packet(request, 1.0)
    assert recorder.of(PlaybackStalled) == []


def test_audio_of_unknown_length_is_not_known_to_stall(
    hooks: Any, recorder: Any, clock: Any
) -> None:
    request = begin(OpenRequests(hooks, (0.0,)))
    packet(request, 1.0, rate=None)
    packet(request, 1.0)
    clock.now += 10.0
    packet(request, 1.0)
    assert recorder.of(PlaybackStalled) == []


def test_nothing_is_watched_for_nobody(clock: Any) -> None:
    registry = HookRegistry()

    class HearsStreams:
        @hookimpl
        def omni_stream_finished(self, event: StreamFinished) -> None: ...

    registry.register(HearsStreams())
    requests = OpenRequests(registry.hooks)
    request = begin(requests)
    packet(request, 1.0)
    assert request.streams[VOCODER].watched is None
    assert timers(requests) == []


def test_stalls_alone_are_worth_a_stream(clock: Any) -> None:
    registry = HookRegistry()
    heard: list[PlaybackStalled] = []

    class HearsStalls:
        @hookimpl
        def omni_playback_stalled(self, event: PlaybackStalled) -> None:
            heard.append(event)

    registry.register(HearsStalls())
    request = begin(OpenRequests(registry.hooks, (0.0,)), replica=None)
    packet(request, 1.0)
    clock.now += 2.0
    packet(request, 1.0)
    request.end(None)
    assert [(event.replica, event.played_seconds) for event in heard] == [(None, 1.0)]


def test_request_is_let_go_at_its_end(hooks: Any, recorder: Any) -> None:
    """By the timer and by what it is told through, which would be a circle."""

    async def story(requests: OpenRequests) -> None:
        request = begin(requests)
        packet(request, 100.0)
        gc.disable()
        try:
            before = len([o for o in gc.get_objects() if type(o) is OpenRequest])
            request.end(None)
            del request
            after = len([o for o in gc.get_objects() if type(o) is OpenRequest])
        finally:
            gc.enable()
        assert after == before - 1

    on_a_loop(hooks, story)


def test_loop_that_is_gone_takes_its_timer_with_it(hooks: Any, recorder: Any) -> None:
    async def story(requests: OpenRequests) -> None:
        packet(begin(requests), SHORT)
        await told(recorder, 1)

    requests = on_a_loop(hooks, story)
    gc.collect()
    assert timers(requests) == []


def test_fault_of_ours_ends_in_the_timer(
    hooks: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_omni_metrics_plugin import internal_errors

    async def story(requests: OpenRequests) -> None:
        def fails(*_: Any) -> None:
            raise RuntimeError("ours")

        packet(begin(requests), SHORT)
        monkeypatch.setattr(Watched, "look", fails)
        deadline = time.monotonic() + SECONDS
        while not internal_errors.errors.counts():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    on_a_loop(hooks, story)
    assert internal_errors.errors.counts() == {"telling of stalls": 1}


def test_player_that_has_not_started_is_not_dry() -> None:
    playback = Playback((0.5,))
    playback.packet(0.0, 0.1)
    heard: list[object] = []
    watched = Watched(playback, lambda *stall: heard.append(stall))
    assert watched.look(100.0) is None
    assert heard == []
