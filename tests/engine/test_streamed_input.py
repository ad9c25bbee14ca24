"""Input that streams in: the real pump of ``AsyncOmni``, and the real orchestrator's segments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine import installed
from tests.engine.test_async_omni_generate import TALKER, VOCODER, Pipeline, params, serve
from vllm_omni_metrics_plugin.hooks import MediaPacket, RequestFinished, StageFinished

__all__ = ["serve"]
pytestmark = pytest.mark.usefixtures("seams")


def orchestrator(pipeline: Pipeline, request_id: str) -> Any:
    """That of the engine, as far as it takes the outputs of stages in."""
    from vllm_omni.engine.cfg_companion_tracker import CfgCompanionTracker
    from vllm_omni.engine.orchestrator import Orchestrator, OrchestratorRequestState

    request = OrchestratorRequestState(
        request_id,
        sampling_params_list=params("DELTA"),
        final_stage_id=VOCODER,
        final_output_stage_ids={VOCODER},
    )
    request.streaming.enabled = True
    request.stage_submit_ts = {TALKER: 0.0, VOCODER: 0.0}
    engine = object.__new__(Orchestrator)
    engine.stage_pools = pipeline.stage_pools
    engine.num_stages = pipeline.num_stages
    engine.async_chunk = True
    engine.request_states = {request_id: request}
    engine.output_async_queue = pipeline.messages
    engine._cfg_tracker = CfgCompanionTracker()
    engine._pd_pair = engine._stat_logger = engine._prom_metrics = None
    engine._pd_kv_params = {}
    engine._stage_receives_async_chunks = lambda _: True
    return engine


class Talk(Pipeline):
    """Answers every piece of its input; ``reasons`` are the talker's, piece by piece."""

    reasons: tuple[str, ...] = ("LENGTH", "STOP", "STOP")

    def __init__(self, script: Callable[..., None]) -> None:
        super().__init__(script)
        self.pieces: list[Any] = []
        self.orchestrator: Any = None

    async def add_request_async(
        self, request_id: str, prompt: Any, sampling_params_list: Any, **kwargs: Any
    ) -> None:
        self.orchestrator = orchestrator(self, request_id)
        await super().add_request_async(request_id, prompt, sampling_params_list, **kwargs)
        await self.answer(request_id, prompt, last=not kwargs["resumable"])

    async def add_streaming_update_async(
        self, request_id: str, prompt: Any, sampling_params_list: Any, **kwargs: Any
    ) -> None:
        for pool, each in zip(self.stage_pools, sampling_params_list, strict=True):
            pool.output_processor.add_request(installed.core_request(request_id, each), None)
            if not kwargs["resumable"]:
                # The processor goes on to a piece, and then learns that it is the last.
                end = installed.core_request(request_id, each)
                end.resumable = False
                pool.output_processor.add_request(end, None)
        await self.answer(request_id, prompt, last=not kwargs["resumable"])

    async def answer(self, request_id: str, prompt: Any, *, last: bool) -> None:
        reason = self.reasons[len(self.pieces)]
        self.pieces.append(prompt)
        await self.says(TALKER, request_id, reason, 0, last=last)
        await self.says(VOCODER, request_id, "STOP", 2400, last=last)

    async def says(
        self, stage: int, request_id: str, reason: str, samples: int, *, last: bool
    ) -> None:
        import torch
        from vllm.v1.engine import FinishReason
        from vllm_omni.engine.orchestrator import StreamingSegmentState

        streaming = self.orchestrator.request_states[request_id].streaming
        streaming.segments[stage] = StreamingSegmentState(finished=not last)
        outputs = (
            self.stage_pools[stage]
            .output_processor.process_outputs(
                [
                    installed.core_output(
                        {"audio": torch.zeros(samples), "sr": torch.tensor(24000)},
                        request_id=request_id,
                        new_token_ids=[7],
                        finish_reason=FinishReason[reason],
                    )
                ]
            )
            .request_outputs
        )
        if stage == VOCODER:
            outputs = [installed.stage_output(output, stage, "audio") for output in outputs]
        await self.orchestrator._handle_processed_outputs(stage, 0, outputs)


@pytest.fixture
def talk(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[AsyncGenerator[Any, None]], list[Any]]:
    """Runs a client that speaks its prompt; returns the pieces that the engine got."""
    from vllm_omni.entrypoints.async_omni import AsyncOmni

    core_request = installed.core_request

    def resumable(request_id: str, sampling_params: Any) -> Any:
        request = core_request(request_id, sampling_params)
        request.resumable = True
        return request

    def run(prompt: AsyncGenerator[Any, None]) -> list[Any]:
        async def client(omni: Any) -> list[Any]:
            outputs = omni.generate(
                prompt,
                request_id="talk",
                sampling_params_list=[params("DELTA")[VOCODER] for _ in range(2)],
            )
            async for _ in outputs:
                pass
            pieces: list[Any] = omni.engine.pieces
            return pieces

        pieces: list[Any] = serve(lambda *_: None, client)
        return pieces

    # The first request of a session is one that can be resumed.
    monkeypatch.setattr(installed, "core_request", resumable)
    monkeypatch.setattr("tests.engine.test_async_omni_generate.Pipeline", Talk)
    model_config = SimpleNamespace(is_encoder_decoder=False)
    monkeypatch.setattr(AsyncOmni, "model_config", model_config, raising=False)
    return run


def piece(token: int) -> Any:
    from vllm.engine.protocol import StreamingInput

    return StreamingInput(prompt={"prompt_token_ids": [token]})


def test_limit_in_the_first_of_two_pieces_and_the_time_after_the_last(
    talk: Callable[..., list[Any]], recorder: Any
) -> None:
    async def speak() -> AsyncGenerator[Any, None]:
        yield piece(1)
        await asyncio.sleep(0.3)
        yield piece(2)

    prompts = talk(speak())
    assert [prompt["prompt_token_ids"] for prompt in prompts] == [[1], [2], [0]]
    finished = recorder.only(RequestFinished)
    assert finished.outcome == "length", [
        (event.stage, event.finish_reason) for event in recorder.of(StageFinished)
    ]
    assert [event.finish_reason for event in recorder.of(StageFinished)] == ["stop", "stop"]
    first, *_, last = recorder.of(MediaPacket)
    assert (first.during_input, first.since_arrival_seconds) == (True, None)
    assert not last.during_input
    assert 0 <= last.since_arrival_seconds <= finished.end_to_end_seconds < 0.3
    assert finished.queue_seconds is None, "there is no scheduler that says when it began"


def test_one_late_piece_is_answered_at_once(talk: Callable[..., list[Any]], recorder: Any) -> None:
    async def speak() -> AsyncGenerator[Any, None]:
        await asyncio.sleep(0.3)
        yield piece(1)

    talk(speak())
    finished = recorder.only(RequestFinished)
    assert not finished.during_input
    assert 0 <= finished.end_to_end_seconds < 0.3
    assert finished.queue_seconds is None, "there is no scheduler that says when it began"
