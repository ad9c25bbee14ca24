"""The wrapper around ``generate``: its caller must not be able to tell that it is there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    RequestArrived,
    RequestFinished,
)
from vllm_omni_metrics_plugin.patches import generate as generate_patch
from vllm_omni_metrics_plugin.patches.generate import wrap_generate, wrap_request_id, wrap_result
from vllm_omni_metrics_plugin.patches.replicas import wrap_engine_init
from vllm_omni_metrics_plugin.patches.state import EngineState, Stage
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests
from vllm_omni_metrics_plugin.requests.arrival import WallClock


class Output(SimpleNamespace):
    """What generate() yields, as far as the wrapper looks at it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def speech(samples: int, finished: bool = False, **more: Any) -> Output:
    completion = SimpleNamespace(
        multimodal_output={"audio": np.zeros(samples), "sr": 24000},
        finish_reason="stop" if finished else None,
    )
    fields: dict[str, Any] = {
        "outputs": [completion],
        "finished": finished,
        "final_output_type": "audio",
        "stage_id": 1,
        "replica_id": 2,
    }
    return Output(**{**fields, **more})


class Engine:
    """Yields what it is given; exceptions among it are raised."""

    model = "tiny"
    engine = SimpleNamespace(stage_vllm_configs=[None], stage_pools=())
    numbers = 0

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.calls: list[Any] = []
        self.ended_with: BaseException | None = None
        self.cleaned_up = 0

    @staticmethod
    def _get_unique_request_id(external_request_id: str) -> str:
        Engine.numbers += 1
        return f"{external_request_id}-{Engine.numbers}"

    async def generate(
        self, prompt: Any, sampling_params: Any = None, request_id: str = "", **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        self.calls.append((prompt, sampling_params, request_id, kwargs))
        self._get_unique_request_id(request_id)
        try:
            for step in self.script:
                if isinstance(step, BaseException):
                    raise step
                if callable(step):
                    await step()
                else:
                    yield step
        except BaseException as error:
            self.ended_with = error
            raise
        finally:
            await asyncio.sleep(0)  # the engine cleans up asynchronously, too
            self.cleaned_up += 1


@pytest.fixture(autouse=True)
def _wrapped(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    new_id = wrap_request_id(Engine._get_unique_request_id, state)
    monkeypatch.setattr(Engine, "_get_unique_request_id", staticmethod(new_id))
    monkeypatch.setattr(Engine, "generate", wrap_generate(Engine.generate, state))


async def collect(outputs: AsyncGenerator[Any, None]) -> list[Any]:
    return [output async for output in outputs]


def run(engine: Engine, sampling_params: Any = None, **kwargs: Any) -> list[Any]:
    return asyncio.run(collect(engine.generate("hello", sampling_params, "speech", **kwargs)))


# What the caller gets


def test_output_of_a_pooling_stage_is_no_media_and_no_fault(recorder: Any) -> None:
    class Pooled(Output):
        @property
        def multimodal_output(self) -> Any:
            raise TypeError("'PoolingOutput' object is not iterable")

    run(Engine(Pooled(outputs=object(), finished=True, final_output_type="timestamps")))
    assert recorder.only(RequestFinished).outcome == "stop"
    assert internal_errors.errors.counts() == {}


def test_caller_gets_the_identical_outputs_in_order(recorder: Any) -> None:
    outputs = [speech(480), speech(0), object(), None, speech(480, finished=True)]
    engine = Engine(*outputs)
    received = run(engine)
    assert len(received) == len(outputs)
    assert all(one is other for one, other in zip(received, outputs, strict=True))
    assert engine.cleaned_up == 1
    assert recorder.only(RequestFinished).outcome == "stop"


def test_engine_gets_every_argument_as_it_was_passed() -> None:
    engine, params = Engine(speech(1, finished=True)), object()
    asyncio.run(collect(engine.generate("a", params, "id", priority=3, arrival_time=5.0)))
    asyncio.run(collect(engine.generate(prompt="b", request_id="id")))
    asyncio.run(collect(engine.generate("c")))
    assert engine.calls == [
        ("a", params, "id", {"priority": 3, "arrival_time": 5.0}),
        ("b", None, "id", {}),
        ("c", None, "", {}),
    ]


def test_engine_is_not_called_before_the_first_output_is_asked_for(state: EngineState) -> None:
    engine = Engine(speech(1))

    async def leave() -> None:
        outputs = engine.generate("hello")
        await outputs.aclose()

    asyncio.run(leave())
    assert engine.calls == []
    assert state.requests.by_id == {}


def test_engine_that_says_nothing_ends_as_an_error(recorder: Any) -> None:
    assert run(Engine()) == []
    assert recorder.only(RequestFinished).outcome == "error"


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    "error", [RuntimeError("stage died"), ValueError("bad voice"), SystemExit(3)], ids=repr
)
def test_exceptions_reach_the_caller_as_the_same_object(
    recorder: Any, error: BaseException, position: int
) -> None:
    engine = Engine(*[speech(480)] * position, error)
    received: list[Any] = []

    async def receive() -> None:
        async for output in engine.generate("hello"):
            received.append(output)

    def drive() -> None:
        # asyncio.run() would end on SystemExit by itself
        step = receive()
        while True:
            step.send(None)

    with pytest.raises(type(error)) as raised:
        drive()
    assert raised.value is error
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    assert len(received) == position
    assert engine.cleaned_up == 1
    recorder.only(RequestFinished)


def leave_after(engine: Engine, outputs: int) -> None:
    async def listen() -> None:
        generator = engine.generate("hello", None, "speech")
        for _ in range(outputs):
            await generator.__anext__()
        await generator.aclose()

    asyncio.run(listen())


def test_listener_who_hangs_up_makes_the_engine_stop_and_counts_as_abort(recorder: Any) -> None:
    engine = Engine(speech(480), speech(480), speech(480, finished=True))
    leave_after(engine, 2)
    assert isinstance(engine.ended_with, GeneratorExit)
    assert engine.cleaned_up == 1, "and its clean-up was waited for"
    assert recorder.only(RequestFinished).outcome == "abort"
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [480, 480]
    assert recorder.of(AudioFinished) == []


def test_break_out_of_the_loop_ends_the_request_as_soon_as_the_generator_is_closed(
    recorder: Any,
) -> None:
    engine = Engine(speech(480), speech(480, finished=True))

    async def listen() -> None:
        async for _ in engine.generate("hello"):
            break
        for _ in range(20):  # the event loop closes what nobody holds, in a task of its own
            await asyncio.sleep(0)

    asyncio.run(listen())
    assert engine.cleaned_up == 1
    assert recorder.only(RequestFinished).outcome == "abort"


def test_cancelled_caller_cancels_the_engine_and_counts_as_abort(recorder: Any) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    engine = Engine(speech(480), forever)

    async def hang_up() -> None:
        listening = asyncio.create_task(collect(engine.generate("hello")))
        while not recorder.of(MediaPacket):
            await asyncio.sleep(0)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    asyncio.run(hang_up())
    assert isinstance(engine.ended_with, asyncio.CancelledError)
    assert engine.cleaned_up == 1
    assert recorder.only(RequestFinished).outcome == "abort"


def test_cancelled_before_the_first_output_counts_as_abort(
    state: EngineState, recorder: Any
) -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    engine = Engine(forever)

    async def hang_up() -> None:
        listening = asyncio.create_task(collect(engine.generate("hello")))
        while not recorder.of(RequestArrived):
            await asyncio.sleep(0)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    asyncio.run(hang_up())
    assert recorder.only(RequestFinished).outcome == "abort"
    assert state.requests.by_id == {}


def test_generator_can_be_asked_again_after_its_end() -> None:
    async def listen() -> None:
        outputs = Engine(speech(1)).generate("hello")
        await outputs.__anext__()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await outputs.__anext__()

    asyncio.run(listen())


# Which request is which


def test_concurrent_calls_with_the_same_external_id_are_kept_apart(
    state: EngineState, recorder: Any
) -> None:
    async def listen() -> None:
        await asyncio.gather(
            collect(Engine(step, speech(100), step, speech(100, finished=True)).generate(*call)),
            collect(Engine(step, speech(7), step, speech(7, finished=True)).generate(*call)),
            collect(Engine(step, step, RuntimeError("died")).generate(*call)),
            return_exceptions=True,
        )

    async def step() -> None:
        await asyncio.sleep(0)

    call = ("hello", None, "the same")
    asyncio.run(listen())
    ids = [event.request_id for event in recorder.of(RequestArrived)]
    assert len(set(ids)) == 3
    assert {event.external_request_id for event in recorder.of(RequestArrived)} == {"the same"}
    outcomes = {event.request_id: event.outcome for event in recorder.of(RequestFinished)}
    assert [outcomes[request_id] for request_id in ids] == ["stop", "stop", "error"]
    frames = {done.request_id: done.samples for done in recorder.of(AudioFinished)}
    assert [frames.get(request_id) for request_id in ids] == [200, 14, None]
    assert state.requests.by_id == {}


def test_nothing_stays_in_the_callers_context(recorder: Any) -> None:
    inside: list[Any] = []

    async def look() -> None:
        inside.append(generate_patch._current_call.get())

    async def listen() -> None:
        outputs = Engine(look, speech(1), look, speech(1, finished=True)).generate("hello")
        async for _ in outputs:
            assert generate_patch._current_call.get() is None
        assert generate_patch._current_call.get() is None
        with pytest.raises(RuntimeError, match="died"):
            await collect(Engine(RuntimeError("died")).generate("hello"))
        assert generate_patch._current_call.get() is None

    asyncio.run(listen())
    assert inside[0] is not None, "the engine finds its call on the way to its first output"
    assert inside[1] is None


def test_id_that_is_made_outside_of_generate_begins_no_request(recorder: Any) -> None:
    assert Engine._get_unique_request_id("other").startswith("other-")
    assert recorder.events == []


def test_second_id_that_one_call_makes_begins_no_second_request(recorder: Any) -> None:
    async def another_id() -> None:
        Engine._get_unique_request_id("companion")

    run(Engine(another_id, speech(1, finished=True)))
    assert recorder.only(RequestArrived).external_request_id == "speech"
    recorder.only(RequestFinished)


# What is told about it


def test_audio_of_each_output_is_observed_with_its_stage_and_replica(recorder: Any) -> None:
    run(Engine(speech(480), speech(20, finished=True, replica_id=0)))
    assert [
        (packet.samples, packet.stage, packet.replica) for packet in recorder.of(MediaPacket)
    ] == [(480, 1, 2), (20, 1, 0)]
    assert recorder.only(AudioFinished).samples == 500


def test_audio_on_the_output_itself_is_found_and_counted_once(recorder: Any) -> None:
    payload = {"audio": np.zeros(480), "sr": 24000}
    completion = SimpleNamespace(multimodal_output=payload, finish_reason="stop")
    shown_twice = speech(0, finished=True, outputs=[completion], multimodal_output=payload)
    run(Engine(shown_twice))
    run(Engine(speech(0, finished=True, outputs=[], multimodal_output=payload)))
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [480, 480]


@pytest.mark.parametrize("kind", ["image", "images", "video", "videos"])
def test_sound_of_pictures_is_no_audio_output(recorder: Any, kind: str) -> None:
    run(Engine(speech(480, finished=True, final_output_type=kind)))
    assert recorder.of(MediaPacket) == []
    assert recorder.of(AudioFinished) == []
    assert recorder.only(RequestFinished).outcome == "stop"


def test_text_is_delivered_without_audio(recorder: Any) -> None:
    text = SimpleNamespace(text="hello", finish_reason="length")
    run(Engine(speech(0, finished=True, outputs=[text], final_output_type="text")))
    assert recorder.of(AudioFinished) == []
    assert recorder.only(RequestFinished).outcome == "length"


def test_finish_reason_of_an_unfinished_output_is_not_the_requests(recorder: Any) -> None:
    part = SimpleNamespace(multimodal_output=None, finish_reason="length")
    run(Engine(speech(0, outputs=[part]), speech(480, finished=True)))
    assert recorder.only(RequestFinished).outcome == "stop"


class Refused(ValueError):
    status_code = 400


@pytest.mark.parametrize("error", [ValueError("bad voice"), Refused(), RuntimeError("died")])
def test_exception_that_no_client_is_answered_with_is_an_error(
    recorder: Any, error: Exception
) -> None:
    with pytest.raises(type(error)):
        run(Engine(error))
    assert recorder.only(RequestFinished).outcome == "error"


@pytest.mark.parametrize(
    ("age", "believed"),
    [(0.0, 0.0), (2.5, 2.5), (60.5, 60.5), (3600.0, 3600.0), (-0.05, 0.0), (None, 0.0)],
)
def test_endpoints_own_arrival_time_is_believed_however_old_it_is(
    recorder: Any, clock: Any, state: EngineState, age: float | None, believed: float
) -> None:
    state.wall_clock = WallClock()
    clock.advance(4000.0)
    run(Engine(), arrival_time=None if age is None else clock.time() - age)
    assert recorder.only(RequestArrived).arrived_at == pytest.approx(clock.now - believed)


@pytest.mark.parametrize("step", [3600.0, -3600.0, -2.0, 0.5])
def test_arrival_before_the_wall_clock_was_set_is_not_known(
    recorder: Any, clock: Any, state: EngineState, step: float
) -> None:
    state.wall_clock = WallClock()
    clock.advance(100.0)
    stamp = clock.time()
    clock.advance(5.0)
    clock.step(step)
    run(Engine(speech(480), speech(480, finished=True)), arrival_time=stamp)
    assert recorder.only(RequestArrived).arrived_at == clock.now, "when it called the engine"
    assert recorder.only(RequestFinished).end_to_end_seconds is None
    assert {packet.since_arrival_seconds for packet in recorder.of(MediaPacket)} == {None}
    assert recorder.only(AudioFinished).first_packet_seconds is None


def test_arrival_after_the_wall_clock_was_set_is_known_again(
    recorder: Any, clock: Any, state: EngineState
) -> None:
    state.wall_clock = WallClock()
    clock.step(-3600.0)
    run(Engine(), arrival_time=clock.time())
    clock.advance(10.0)
    run(Engine(), arrival_time=clock.time() - 7.0)
    assert [event.arrived_at for event in recorder.of(RequestArrived)] == [1000.0, 1003.0]


def test_arrival_before_the_process_began_is_not_known(
    recorder: Any, clock: Any, state: EngineState
) -> None:
    state.wall_clock = WallClock()
    run(Engine(), arrival_time=clock.time() - 1.0)
    assert recorder.only(RequestFinished).end_to_end_seconds is None


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), "now", True, object()])
def test_arrival_time_that_is_none_is_ignored(recorder: Any, clock: Any, nonsense: Any) -> None:
    run(Engine(), arrival_time=nonsense)
    assert recorder.only(RequestArrived).arrived_at == clock.now


@pytest.mark.parametrize(
    ("configs", "name"),
    [
        ([SimpleNamespace(model_config=SimpleNamespace(served_model_name="voice"))], "voice"),
        ([None, SimpleNamespace(model_config=SimpleNamespace(served_model_name="v"))], "v"),
        ([SimpleNamespace(model_config=SimpleNamespace(served_model_name=None))], "tiny"),
        ([None], "tiny"),
        ([], "tiny"),
    ],
)
def test_requests_carry_the_served_name_of_the_model(
    recorder: Any, configs: list[Any], name: str
) -> None:
    engine = Engine(speech(1, finished=True))
    engine.engine = SimpleNamespace(stage_vllm_configs=configs, stage_pools=())
    run(engine)
    assert recorder.only(RequestArrived).model_name == name
    assert recorder.only(RequestFinished).model_name == name


@pytest.mark.parametrize(
    ("served_as", "name"),
    [("picture", "picture"), (["picture", "alias"], "picture"), ([], "tiny"), (None, "tiny")],
)
def test_engine_without_one_of_vllms_goes_by_the_name_it_was_given(
    recorder: Any, state: EngineState, served_as: Any, name: str
) -> None:
    engine = Engine(speech(1, finished=True))
    engine.engine = SimpleNamespace(stage_vllm_configs=[None], stage_pools=())
    build = wrap_engine_init(lambda self, **kwargs: None, state)
    build(engine, served_model_name=served_as)
    run(engine)
    assert recorder.only(RequestArrived).model_name == name


def test_engine_without_a_name_is_served_all_the_same(recorder: Any, log: Any) -> None:
    engine = Engine(speech(1, finished=True))
    engine.engine = None  # type: ignore[assignment]
    assert len(run(engine)) == 1
    assert recorder.only(RequestArrived).model_name == "unknown"
    assert len(log.messages) == 1


# Our own faults

FAULTS: list[tuple[type, str]] = [
    (OpenRequest, "audio_output"),
    (OpenRequest, "end"),
    (OpenRequests, "begin"),
]


@pytest.mark.parametrize(("owner", "method"), FAULTS, ids=[method for _, method in FAULTS])
def test_fault_of_ours_changes_nothing_for_the_caller_and_is_logged_once(
    log: Any, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    def fault(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(owner, method, fault)
    outputs = [speech(480), speech(480, finished=True)]
    for _ in range(3):
        received = run(Engine(*outputs))
        assert all(one is other for one, other in zip(received, outputs, strict=True))
    with pytest.raises(KeyError):
        run(Engine(speech(480), KeyError("the engine's")))
    engine = Engine(speech(480), speech(480))
    leave_after(engine, 1)
    assert engine.cleaned_up == 1
    assert len(log.messages) == 1
    assert str(log.records[0].exc_info[1]) == "a fault of ours"


def test_output_that_cannot_be_read_is_passed_on(recorder: Any, log: Any) -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name} for you")

    odd = Odd()
    assert run(Engine(odd, odd)) == [odd, odd]
    assert len(log.messages) == 1


@pytest.mark.parametrize("ending", ["natural", "hang-up", "exception"])
def test_outputs_are_let_go_at_the_end_without_waiting_for_the_garbage_collector(
    ending: str, state: EngineState
) -> None:
    async def original(self: Any, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        self._get_unique_request_id("speech")
        yield speech(480)
        if ending == "exception":
            raise RuntimeError("died")

    async def listen() -> weakref.ref[Any]:
        outputs = wrap_generate(original, state)(Engine(), "hello")
        output = weakref.ref(await outputs.__anext__())
        if ending == "hang-up":
            await outputs.aclose()
        else:
            with contextlib.suppress(StopAsyncIteration, RuntimeError):
                await outputs.__anext__()
        return output

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(listen())() is None, "large tensors live on"
    finally:
        gc.enable()


def test_output_is_not_kept_alive_while_the_next_one_is_awaited(state: EngineState) -> None:
    passed_on: list[weakref.ref[Any]] = []
    kept: list[Any] = []

    async def original(self: Any, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        self._get_unique_request_id("speech")
        yield speech(480)
        kept.append(passed_on[0]())
        yield speech(480, finished=True)

    async def listen() -> None:
        outputs = wrap_generate(original, state)(Engine(), "hello")
        passed_on.append(weakref.ref(await outputs.__anext__()))
        await outputs.__anext__()
        await outputs.aclose()

    asyncio.run(listen())
    assert kept == [None]


# The other wrappers of the request path


def finished_result(request_id: str, finished: bool = True) -> SimpleNamespace:
    return SimpleNamespace(request_id=request_id, finished=finished)


@pytest.mark.parametrize("finished", [False, True])
def test_last_result_completes_its_request(state: EngineState, finished: bool) -> None:
    process = wrap_result(lambda self, result, *args, **kwargs: (result, args, kwargs), state)
    request = state.requests.begin("a-1", "a", "tiny", 0.0)
    other = state.requests.begin("b-1", "b", "tiny", 0.0)
    result = finished_result("a-1", finished)
    assert process(None, result, 1, cursor=2) == (result, (1,), {"cursor": 2})
    assert (request.complete, other.complete) == (finished, False)


def test_result_of_an_unknown_request_is_processed(state: EngineState) -> None:
    process = wrap_result(lambda self, result: "output", state)
    assert process(None, finished_result("unknown")) == "output"
    assert process(None, object()) == "output"


def test_listener_who_leaves_after_the_last_result_heard_everything(
    state: EngineState, recorder: Any
) -> None:
    process = wrap_result(lambda self, result: None, state)

    async def last_result() -> None:
        process(None, finished_result(recorder.only(RequestArrived).request_id))

    leave_after(Engine(speech(480), last_result, speech(20, finished=True)), 2)
    assert recorder.only(RequestFinished).outcome == "stop"
    assert recorder.only(AudioFinished).samples == 500


# What a request asks for


class Chat(Engine):
    """Its last two stages make text and audio; the first makes nothing for clients."""

    def __init__(self, state: EngineState, *script: Any) -> None:
        super().__init__(*script)
        pools = [Output(stage=stage) for stage in range(3)]
        for pool, makes in zip(pools, ((), ("text",), ("audio",)), strict=True):
            state.stages[pool] = Stage("tiny", "stage", "llm", makes=makes)
        self.engine = SimpleNamespace(stage_vllm_configs=[None], stage_pools=pools)


@pytest.mark.parametrize(
    ("prompt", "asked", "modalities"),
    [
        ("hello", {}, ("text", "audio")),
        ("hello", {"output_modalities": None}, ("text", "audio")),
        ("hello", {"output_modalities": ["audio", "timestamps"]}, ("audio",)),
        ("hello", {"output_modalities": ["audio", "text"]}, ("text", "audio")),
        ("hello", {"output_modalities": ["smell"]}, ("text", "audio")),
        ({"modalities": ["image"]}, {"output_modalities": ["audio"]}, ("image",)),
    ],
    ids=str,
)
def test_request_says_what_it_asks_for(
    state: EngineState, recorder: Any, prompt: Any, asked: Any, modalities: tuple[str, ...]
) -> None:
    engine = Chat(state, speech(1, finished=True))
    asyncio.run(collect(engine.generate(prompt, request_id="speech", **asked)))
    assert recorder.only(RequestArrived).modalities == modalities


def test_what_a_request_asks_for_is_empty_where_it_cannot_be_read(
    state: EngineState, recorder: Any, log: Any
) -> None:
    engine = Chat(state, speech(1, finished=True))
    assert len(run(engine, output_modalities=7)) == 1
    assert recorder.only(RequestArrived).modalities == ()
    assert internal_errors.errors.counts()["what a request asks for"] == 1
