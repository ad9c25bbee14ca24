"""The real ``AsyncOmni`` under our seams, from construction to the end of each request.

Real are the client, its output loop, the stage pools and the output processors. Only the
orchestrator between them is replaced, by one that does at once what a test tells it to.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine import installed
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Demand,
    MediaPacket,
    ReplicaJoined,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
)
from vllm_omni_metrics_plugin.patches.state import EngineState

pytestmark = pytest.mark.usefixtures("seams")

TALKER, VOCODER = 0, 1
Script = Callable[["Pipeline", str], None]


class Replica:
    """A client of a stage engine that takes every request."""

    stage_type = "llm"
    final_output = True

    async def add_request_async(self, request: Any, **_: Any) -> None: ...


class Pipeline:
    """In the place of ``AsyncOmniEngine``: a talker, and a vocoder with two replicas."""

    num_stages = 2
    async_chunk = True
    config_path = input_processor = endpoint_restrictions = None
    duplex_session_config = duplex_serving_adapter_path = None
    stage_clients = ()
    stage_vllm_configs = (None, None)
    stage_configs = (SimpleNamespace(stage_type="llm", is_comprehension=False),) * 2

    def __init__(self, script: Script) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm_omni.engine.stage_pool import StagePool

        self.script = script
        self.default_sampling_params_list = [SamplingParams(detokenize=False) for _ in range(2)]
        self.stage_metadata = [
            installed.stage_info(None, "talker"),
            installed.stage_info("audio", "code2wav"),
        ]
        self.stage_pools = [
            StagePool(
                stage,
                [Replica() for _ in range(replicas)],
                output_processor=installed.output_processor(kind),
            )
            for stage, replicas, kind in ((TALKER, 1, "text"), (VOCODER, 2, "audio"))
        ]
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.aborted: list[str] = []

    def is_alive(self) -> bool:
        return True

    def shutdown(self) -> None: ...

    def get_stage_metadata(self, stage: int) -> Any:
        return self.stage_metadata[stage]

    async def try_get_output_async(self) -> Any:
        return await self.messages.get()

    async def abort_async(self, request_ids: list[str], timeout: float | None = None) -> None:
        self.aborted += request_ids

    async def add_request_async(
        self, request_id: str, prompt: Any, sampling_params_list: Any, **_: Any
    ) -> None:
        from vllm_omni.engine.orchestrator import OrchestratorRequestState

        if isinstance(prompt, Exception):
            raise prompt
        state = OrchestratorRequestState(request_id, sampling_params_list=sampling_params_list)
        for pool, params in zip(self.stage_pools, sampling_params_list, strict=True):
            request = installed.core_request(request_id, params)
            await pool.submit_initial(request_id, state, request)
        self.script(self, request_id)

    def stage_says(
        self, stage: int, request_id: str, samples: int = 0, reason: str | None = None
    ) -> None:
        """A stage's engine core sends samples; ``reason``: and is done with the request."""
        import torch
        from vllm.v1.engine import FinishReason
        from vllm_omni.engine.messages import OutputMessage

        pool = self.stage_pools[stage]
        replica = pool.get_bound_replica_id(request_id)
        core_output = installed.core_output(
            {"audio": torch.zeros(samples), "sr": torch.tensor(24000)},
            request_id=request_id,
            new_token_ids=[7],
            finish_reason=FinishReason[reason.upper()] if reason else None,
        )
        metrics = None
        for output in pool.output_processor.process_outputs([core_output]).request_outputs:
            if output.finished:
                metrics = pool.build_stage_metrics(
                    [output], submit_ts=0.0, request_timestamp=0.0, replica_id=replica
                )
            if stage == VOCODER:
                message = OutputMessage(
                    request_id=request_id,
                    stage_id=stage,
                    replica_id=replica,
                    engine_outputs=installed.stage_output(output, stage, "audio"),
                    metrics=metrics,
                    finished=output.finished,
                )
                self.messages.put_nowait(message)

    def fails(self, **fields: Any) -> None:
        from vllm_omni.engine.messages import ErrorMessage

        self.messages.put_nowait(ErrorMessage(**fields))


@pytest.fixture
def serve(
    state: EngineState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Runs a client's coroutine against a real AsyncOmni whose orchestrator follows a script."""
    from vllm_omni.entrypoints import omni_base
    from vllm_omni.entrypoints.async_omni import AsyncOmni

    def run(script: Script, client: Callable[[Any], Awaitable[Any]]) -> Any:
        if hasattr(AsyncOmni, "_create_engine"):
            monkeypatch.setattr(AsyncOmni, "_create_engine", lambda self, **_: Pipeline(script))
        else:
            monkeypatch.setattr(omni_base, "AsyncOmniEngine", lambda **_: Pipeline(script))

        async def session() -> Any:
            omni = AsyncOmni(model=str(tmp_path))
            try:
                return await client(omni)
            finally:
                omni.shutdown()
                assert omni.request_states == {}, "the engine's own clean-up ran"

        return asyncio.run(session())

    yield run
    assert state.requests.by_id == {}


def params(kind: str) -> list[Any]:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return [
        SamplingParams(detokenize=False, output_kind=RequestOutputKind[each])
        for each in ("FINAL_ONLY", kind)
    ]


def listener(
    prompt: Any = "hello", kind: str = "DELTA", leave_after: int | None = None
) -> Callable[[Any], Awaitable[list[Any]]]:
    """A client that takes every output, or hangs up after some."""

    async def listen(omni: Any) -> list[Any]:
        heard = []
        outputs = omni.generate(prompt, request_id="speech", sampling_params_list=params(kind))
        async for output in outputs:
            heard.append(output)
            if len(heard) == leave_after:
                await outputs.aclose()
        return heard

    return listen


def speak(pipeline: Pipeline, request_id: str) -> None:
    """A talker whose tokens ran out, and three packets of audio."""
    pipeline.stage_says(VOCODER, request_id, samples=1920)
    pipeline.stage_says(TALKER, request_id, reason="length")
    pipeline.stage_says(VOCODER, request_id, samples=7680)
    pipeline.stage_says(VOCODER, request_id, samples=480, reason="stop")


def begin_to_speak(pipeline: Pipeline, request_id: str) -> None:
    pipeline.stage_says(VOCODER, request_id, samples=1920)


def test_processors_take_the_times_of_tokens_whatever_they_are_told() -> None:
    assert installed.output_processor("text").log_stats, "it was told not to"


def test_replicas_are_announced_when_the_engine_is_ready(
    serve: Callable[..., Any], recorder: Any, tmp_path: Path
) -> None:
    async def nothing(omni: Any) -> None: ...

    serve(speak, nothing)
    joined = recorder.of(ReplicaJoined)
    assert {(event.stage, event.replica, event.stage_name) for event in joined} == {
        (0, 0, "talker"),
        (1, 0, "code2wav"),
        (1, 1, "code2wav"),
    }
    assert len(joined) == 3
    assert {(event.stage_type, event.model_name) for event in joined} == {("llm", str(tmp_path))}


def test_streamed_request_is_followed_from_arrival_to_natural_end(
    serve: Callable[..., Any], recorder: Any
) -> None:
    heard = serve(speak, listener())
    assert [output.request_id for output in heard] == ["speech"] * 3, "the endpoint's id"
    arrived = recorder.only(RequestArrived)
    assert arrived.external_request_id == "speech"
    assert arrived.request_id.startswith("speech-")

    unasked = Demand(tokens=16)  # which is what vLLM allows
    submits = recorder.of(StageSubmitted)
    assert [(given.stage, given.replica, given.demands) for given in submits] == [
        (TALKER, 0, (unasked, unasked)),
        (VOCODER, 0, ()),
    ]
    assert [
        (done.stage, done.replica, done.finish_reason, done.tokens_in, done.tokens_out)
        for done in recorder.of(StageFinished)
    ] == [(TALKER, 0, "length", 3, 1), (VOCODER, 0, "stop", 0, 3)]
    assert all(done.generation_seconds is not None for done in recorder.of(StageFinished))

    packets = recorder.of(MediaPacket)
    assert [packet.samples for packet in packets] == [1920, 7680, 480]
    assert all(packet.streamed and packet.replica == 0 for packet in packets)
    audio = recorder.only(AudioFinished)
    assert (audio.samples, audio.sample_rate, audio.stage) == (10080, 24000, VOCODER)
    assert audio.first_packet_seconds is not None
    finished = recorder.only(RequestFinished)
    assert finished.outcome == "length", "the talker's limit cut the sentence short"
    assert finished.queue_seconds is None, "there is no scheduler that says when it began"
    ids = {event.request_id for event in recorder.events if hasattr(event, "request_id")}
    assert ids == {arrived.request_id}, "one id throughout"


def test_whole_answer_is_one_packet(serve: Callable[..., Any], recorder: Any) -> None:
    [answer] = serve(speak, listener(kind="FINAL_ONLY"))
    assert answer.finished
    packet = recorder.only(MediaPacket)
    assert (packet.samples, packet.streamed) == (10080, False)
    assert recorder.only(AudioFinished).first_packet_seconds is None


def test_cumulative_answers_count_each_sample_once(
    serve: Callable[..., Any], recorder: Any
) -> None:
    serve(speak, listener(kind="CUMULATIVE"))
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [1920, 7680, 480]


def test_concurrent_requests_with_one_id_go_to_replicas_of_their_own(
    serve: Callable[..., Any], recorder: Any
) -> None:
    async def both(omni: Any) -> None:
        await asyncio.gather(listener()(omni), listener()(omni))

    serve(speak, both)
    assert len({event.request_id for event in recorder.of(RequestArrived)}) == 2
    frames = {done.replica: done.samples for done in recorder.of(AudioFinished)}
    assert frames == {0: 10080, 1: 10080}
    assert [event.outcome for event in recorder.of(RequestFinished)] == ["length"] * 2


def test_listener_who_hangs_up_is_an_abort_and_the_engine_is_told(
    serve: Callable[..., Any], recorder: Any
) -> None:
    async def hang_up(omni: Any) -> Any:
        await listener(leave_after=2)(omni)
        return omni.engine.aborted

    aborted = serve(speak, hang_up)
    assert aborted == [recorder.only(RequestArrived).request_id]
    assert recorder.only(RequestFinished).outcome == "abort"
    assert [packet.samples for packet in recorder.of(MediaPacket)] == [1920, 7680]
    assert recorder.of(AudioFinished) == []


def test_listener_who_hangs_up_after_the_last_packet_heard_everything(
    serve: Callable[..., Any], recorder: Any
) -> None:
    serve(speak, listener(leave_after=3))
    assert recorder.only(RequestFinished).outcome == "length"
    assert recorder.only(AudioFinished).samples == 10080


def test_response_that_is_dropped_in_a_cycle_is_closed_without_a_word(
    serve: Callable[..., Any], recorder: Any
) -> None:
    """As Starlette drops one whose endpoint failed in mid stream."""
    complaints: list[Any] = []

    async def drop(omni: Any) -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        outputs = omni.generate("hello", request_id="speech", sampling_params_list=params("DELTA"))
        await outputs.__anext__()
        cycle: list[Any] = [outputs]
        cycle.append(cycle)
        del outputs, cycle
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        return omni.engine.aborted

    aborted = serve(begin_to_speak, drop)
    gc.collect()
    assert complaints == []
    assert aborted == [recorder.only(RequestArrived).request_id]
    assert recorder.only(RequestFinished).outcome == "abort"


def test_cancelled_request_is_an_abort(serve: Callable[..., Any], recorder: Any) -> None:
    async def cancel(omni: Any) -> None:
        listening: asyncio.Future[Any] = asyncio.ensure_future(listener()(omni))
        while not recorder.of(MediaPacket):
            await asyncio.sleep(0)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    serve(begin_to_speak, cancel)
    assert recorder.only(RequestFinished).outcome == "abort"


@pytest.mark.skipif(
    installed.before("0.30.0"), reason="earlier engines do not tell the client of such an abort"
)
def test_request_that_the_server_aborts_is_an_abort(
    serve: Callable[..., Any], recorder: Any
) -> None:
    async def abort(omni: Any) -> list[Any]:
        heard = []
        async for output in omni.generate("hello", request_id="speech"):
            heard.append(output)
            if len(heard) == 1:
                await omni.abort("speech")
        return heard

    heard = serve(begin_to_speak, abort)
    assert heard[-1].outputs[0].finish_reason == "abort"
    assert recorder.only(RequestFinished).outcome == "abort"
    assert recorder.only(MediaPacket).samples == 1920
    assert recorder.of(AudioFinished) == []


def failing(**fields: Any) -> Script:
    def script(pipeline: Pipeline, request_id: str) -> None:
        pipeline.fails(request_id=request_id, stage_id=VOCODER, error="no such voice", **fields)

    return script


@pytest.mark.parametrize(
    ("fields", "kind", "error"),
    [
        ({"fatal": True}, "DELTA", "OmniEngineDeadError"),
        ({}, "DELTA", "RuntimeError"),
        ({}, "FINAL_ONLY", "RuntimeError"),
        ({"status_code": 500}, "FINAL_ONLY", "RuntimeError"),
        # Nobody is answered with it here.
        ({"status_code": 400}, "FINAL_ONLY", "OmniClientError"),
        ({"status_code": 400}, "DELTA", "OmniClientError"),
    ],
)
def test_error_of_a_stage_reaches_the_caller_and_is_one(
    serve: Callable[..., Any], recorder: Any, fields: dict[str, Any], kind: str, error: str
) -> None:
    if "status_code" in fields and installed.before("0.24.0"):
        pytest.skip("errors have no status here")
    with pytest.raises(Exception, match="no such voice") as raised:
        serve(failing(**fields), listener(kind=kind))
    assert type(raised.value).__name__ == error
    assert recorder.only(RequestFinished).outcome == "error"
    assert recorder.of(AudioFinished) == []


@pytest.mark.skipif(installed.before("0.24.0"), reason="errors have no status here")
def test_error_after_the_first_packet_is_no_refusal(
    serve: Callable[..., Any], recorder: Any
) -> None:
    def script(pipeline: Pipeline, request_id: str) -> None:
        begin_to_speak(pipeline, request_id)
        failing(status_code=400)(pipeline, request_id)

    with pytest.raises(ValueError, match="no such voice"):
        serve(script, listener())
    assert recorder.only(RequestFinished).outcome == "error"
    assert recorder.only(MediaPacket).samples == 1920


def test_engine_that_dies_ends_every_request_as_an_error(
    state: EngineState, serve: Callable[..., Any], recorder: Any
) -> None:
    def script(pipeline: Pipeline, request_id: str) -> None:
        begin_to_speak(pipeline, request_id)
        if len(state.requests.by_id) == 2:
            pipeline.fails(error="killed", fatal=True)

    async def both(omni: Any) -> Any:
        return await asyncio.gather(
            listener()(omni), listener(prompt="bye")(omni), return_exceptions=True
        )

    ends = serve(script, both)
    assert {type(end).__name__ for end in ends} == {"OmniEngineDeadError"}
    assert [event.outcome for event in recorder.of(RequestFinished)] == ["error"] * 2


def test_prompt_that_the_engine_refuses_reaches_no_stage(
    serve: Callable[..., Any], recorder: Any
) -> None:
    bad = ValueError("prompt too long")
    with pytest.raises(ValueError, match="prompt too long") as raised:
        serve(speak, listener(prompt=bad))
    assert raised.value is bad
    finished = recorder.only(RequestFinished)
    assert (finished.outcome, finished.queue_seconds) == ("error", None)
    assert recorder.of(StageSubmitted) == []
