"""The wrappers around the synchronous engine: each prompt of a batch is a request of its own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import (
    ImageFinished,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.patches import offline
from vllm_omni_metrics_plugin.patches.state import EngineState

Script = Callable[["Engine"], Iterator[Any]]


class Engine:
    """Submits every prompt first, as the real one does, then plays a script of outputs."""

    state: EngineState

    def __init__(self, script: Script) -> None:
        self.script = script
        self.submitted: list[str] = []
        self.closed = False

    def add_request(self, request_id: str, prompt: Any, sampling_params_list: Any = None) -> None:
        if isinstance(prompt, Exception):
            raise prompt
        self.submitted.append(request_id)

    def _run_generation(self, prompts: list[Any], sampling_params_list: Any) -> Any:
        try:
            for number, prompt in enumerate(prompts):
                params = sampling_params_list[number] if sampling_params_list else None
                self.add_request(f"{number}_id", prompt, sampling_params_list=params)
            yield from self.script(self)
        finally:
            self.closed = True


@pytest.fixture(autouse=True)
def _wrapped(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> None:
    monkeypatch.setattr(offline, "introduce", lambda engine, state: "tiny")
    add, run = Engine.add_request, Engine._run_generation
    monkeypatch.setattr(Engine, "add_request", offline.wrap_add_request(add, state))
    monkeypatch.setattr(Engine, "_run_generation", offline.wrap_run_generation(run, state))
    monkeypatch.setattr(Engine, "state", state, raising=False)


def says(request_id: str, samples: int = 0, *, last: bool = False) -> Any:
    """An output of the vocoder; ``last``: and the engine has marked the request as complete."""
    if last:
        Engine.state.requests.by_id[request_id].complete = True
    payload = {"audio": SimpleNamespace(shape=(samples,)), "sr": 24000} if samples else None
    completion = SimpleNamespace(multimodal_output=payload, finish_reason="stop" if last else None)
    return SimpleNamespace(
        request_id=request_id,
        outputs=[completion],
        finished=last,
        final_output_type="audio",
        stage_id=1,
        replica_id=0,
    )


def outcomes(recorder: Any) -> dict[str, str]:
    return {event.request_id: event.outcome for event in recorder.of(RequestFinished)}


def test_each_prompt_arrives_and_ends_once(state: EngineState, recorder: Any) -> None:
    def script(engine: Engine) -> Iterator[Any]:
        yield says("1_id", 1200, last=True)
        yield says("0_id", 2400, last=True)

    engine = Engine(script)
    assert len(list(engine._run_generation(["a", "b"], None))) == 2
    assert [event.request_id for event in recorder.of(RequestArrived)] == ["0_id", "1_id"]
    assert {event.model_name for event in recorder.of(RequestArrived)} == {"tiny"}
    assert outcomes(recorder) == {"0_id": "stop", "1_id": "stop"}
    assert {e.request_id: e.samples for e in recorder.of(MediaPacket)} == {
        "0_id": 2400,
        "1_id": 1200,
    }
    assert state.requests.by_id == {}


def test_request_has_ended_when_the_script_gets_its_last_output(
    state: EngineState, recorder: Any
) -> None:
    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id", last=True)
        yield says("1_id", last=True)

    outputs = Engine(script)._run_generation(["a", "b"], None)
    next(outputs)
    assert outcomes(recorder) == {"0_id": "stop"}
    assert list(state.requests.by_id) == ["1_id"]
    outputs.close()


def test_request_whose_last_message_has_no_output_ends_all_the_same(recorder: Any) -> None:
    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id")
        Engine.state.requests.by_id["0_id"].complete = True

    list(Engine(script)._run_generation(["a"], None))
    assert outcomes(recorder) == {"0_id": "stop"}


def test_script_that_stops_listening_aborts_what_is_open(recorder: Any) -> None:
    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id", last=True)
        yield says("1_id")

    engine = Engine(script)
    outputs = engine._run_generation(["a", "b"], None)
    next(outputs)
    outputs.close()
    assert outcomes(recorder) == {"0_id": "stop", "1_id": "abort"}
    assert engine.closed, "the engine hears of it, too"


def test_engine_that_fails_ends_what_is_open_as_error_and_the_script_sees_it(
    recorder: Any,
) -> None:
    error = RuntimeError("stage 1 died")

    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id", last=True)
        raise error

    with pytest.raises(RuntimeError) as raised:
        list(Engine(script)._run_generation(["a", "b"], None))
    assert raised.value is error
    assert outcomes(recorder) == {"0_id": "stop", "1_id": "error"}


def test_prompt_that_is_refused_ends_the_batch_as_error(recorder: Any) -> None:
    with pytest.raises(ValueError, match="bad"):
        list(Engine(lambda engine: iter(()))._run_generation(["a", ValueError("bad")], None))
    assert outcomes(recorder) == {"0_id": "error", "1_id": "error"}


def test_server_that_adds_requests_has_no_batch(recorder: Any) -> None:
    Engine(lambda engine: iter(())).add_request("served", "a")
    assert recorder.events == []


def test_two_batches_that_take_turns_are_kept_apart(recorder: Any) -> None:
    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id", last=True)

    one = Engine(script)._run_generation(["a"], None)
    next(one)
    Engine(script).add_request("served", "a")
    assert list(one) == []
    assert [event.request_id for event in recorder.of(RequestArrived)] == ["0_id"]


def test_fault_of_ours_changes_nothing_for_the_script(
    state: EngineState, recorder: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(state.requests, "begin", fail)
    output = object()
    assert list(Engine(lambda engine: iter([output]))._run_generation(["a"], None)) == [output]
    assert len(log.messages) == 1


def picture(request_id: str, content: Any, kind: str) -> Any:
    """The only output of a diffusion stage."""
    Engine.state.requests.by_id[request_id].complete = True
    return SimpleNamespace(
        request_id=request_id,
        outputs=[],
        images=[content],
        multimodal_output={},
        finished=True,
        final_output_type=kind,
        stage_id=0,
        replica_id=0,
    )


def test_batch_is_measured_by_what_it_asks_for(recorder: Any) -> None:
    tensor = SimpleNamespace(shape=(16, 64, 64, 3))
    asks = [
        ({"prompt": "a"}, SimpleNamespace(resolved_frame_rate=16.0)),
        ({"prompt": "b", "modalities": ["image"]}, SimpleNamespace()),
        ({"prompt": "c"}, SimpleNamespace(output_type="latent")),
    ]

    def script(engine: Engine) -> Iterator[Any]:
        yield picture("0_id", tensor, "video")
        yield picture("1_id", SimpleNamespace(shape=(64, 64, 3)), "video")
        yield picture("2_id", SimpleNamespace(shape=(1, 4, 64, 64)), "image")

    engine = Engine(script)
    prompts = [prompt for prompt, _ in asks]
    list(engine._run_generation(prompts, [[params] for _, params in asks]))
    video = recorder.only(VideoFinished)
    assert (video.frames, video.frame_rate, video.duration_seconds) == (16, 16.0, 1.0)
    asked, latent = recorder.of(ImageFinished)
    assert (asked.request_id, asked.images, asked.pixels) == ("1_id", 1, (4096,))
    assert (latent.request_id, latent.images, latent.unknown_form) == ("2_id", 0, True)


def test_what_a_prompt_asked_for_is_not_kept_after_its_end() -> None:
    class Prompt(dict[str, Any]):
        pass

    prompts: list[Any] = [Prompt(), Prompt()]
    first = weakref.ref(prompts[0])

    def script(engine: Engine) -> Iterator[Any]:
        yield says("0_id", 1, last=True)
        yield says("1_id", 1, last=True)

    run = Engine(script)._run_generation(prompts, None)
    next(run)
    batch = run.gi_frame.f_locals["batch"]
    assert list(batch.requests) == ["1_id"]
    list(run)
    del prompts, run
    gc.collect()
    assert first() is None
