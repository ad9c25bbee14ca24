"""The engine's own output objects, made by its own processor, as the client patch reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.engine import installed
from vllm_omni_metrics_plugin.hooks import AudioFinished, MediaPacket, RequestFinished
from vllm_omni_metrics_plugin.patches.outputs import observe as _observe
from vllm_omni_metrics_plugin.patches.stages import _DELIVERIES
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests

CHUNKS = (1920, 7680, 480)
FRAMES = sum(CHUNKS)
#: The forms in which the models hand out one chunk.
SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "mono": lambda samples: (samples,),
    "one channel": lambda samples: (1, samples),
    "stereo": lambda samples: (2, samples),
    "batch of one": lambda samples: (1, 1, samples),
}
#: What each way of delivery makes of the chunks.
PACKETS = {
    "DELTA": list(CHUNKS),
    "CUMULATIVE": list(CHUNKS),
    "FINAL_ONLY": [FRAMES],
}


@pytest.fixture
def request_(hooks: Any) -> Iterator[OpenRequest]:
    requests = OpenRequests(hooks)
    yield requests.begin("speech-12345678", "speech", "tiny", 0.0)
    assert requests.by_id == {}


def processed(kind: str, chunks: list[dict[str, Any]]) -> Iterator[Any]:
    """What the audio stage's processor makes of what its engine core sent, one per chunk."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine import FinishReason

    request_id = "speech-12345678"
    processor = installed.output_processor("audio")
    processor.add_request(
        installed.core_request(
            request_id,
            SamplingParams(output_kind=RequestOutputKind[kind], detokenize=False, max_tokens=100),
        ),
        None,
    )
    for number, chunk in enumerate(chunks, start=1):
        core_output = installed.core_output(
            chunk,
            request_id=request_id,
            new_token_ids=[number],
            finish_reason=FinishReason.STOP if number == len(chunks) else None,
        )
        for output in processor.process_outputs([core_output]).request_outputs:
            yield installed.client_output(output, "speech", 1, 2, "audio")


@pytest.mark.parametrize("name", ["model_outputs", "audio"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PACKETS)
def test_each_way_of_delivery_counts_every_sample_once(
    request_: OpenRequest, recorder: Any, kind: str, shape: str, name: str
) -> None:
    import torch

    chunks = [
        {name: torch.zeros(*SHAPES[shape](samples)), "sr": torch.tensor(24000)}
        for samples in CHUNKS
    ]
    request_.submitting(1, _DELIVERIES[kind])
    for output in processed(kind, chunks):
        _observe(request_, output)
    request_.end(None)

    packets = recorder.of(MediaPacket)
    assert [packet.samples for packet in packets] == PACKETS[kind]
    assert [packet.index for packet in packets] == list(range(len(packets)))
    assert {(packet.stage, packet.replica, packet.sample_rate) for packet in packets} == {
        (1, 2, 24000)
    }
    assert {packet.streamed for packet in packets} == {kind != "FINAL_ONLY"}
    done = recorder.only(AudioFinished)
    assert (done.samples, done.sample_rate, done.replica) == (FRAMES, 24000, 2)
    assert done.duration_seconds == FRAMES / 24000
    assert (done.first_packet_seconds is None) == (kind == "FINAL_ONLY")
    assert recorder.only(RequestFinished).outcome == "stop"


@pytest.mark.parametrize("kind", PACKETS)
def test_sample_rate_that_comes_with_the_last_chunk_only_is_found(
    request_: OpenRequest, recorder: Any, kind: str
) -> None:
    import torch

    chunks: list[dict[str, Any]] = [{"model_outputs": torch.zeros(480)} for _ in range(2)]
    chunks.append({"model_outputs": torch.zeros(480), "sr": torch.tensor([16000])})
    request_.submitting(1, _DELIVERIES[kind])
    for output in processed(kind, chunks):
        _observe(request_, output)
    request_.end(None)
    assert recorder.of(MediaPacket)[-1].sample_rate == 16000
    assert recorder.only(AudioFinished).duration_seconds == 1440 / 16000


@pytest.mark.parametrize("kind", PACKETS)
def test_stage_that_made_no_sound_finishes_with_no_frames(
    request_: OpenRequest, recorder: Any, kind: str
) -> None:
    import torch

    request_.submitting(1, _DELIVERIES[kind])
    for output in processed(kind, [{"model_outputs": torch.zeros(0), "sr": torch.tensor(24000)}]):
        _observe(request_, output)
    request_.end(None)
    assert recorder.of(MediaPacket) == []
    done = recorder.only(AudioFinished)
    assert (done.samples, done.duration_seconds) == (0, None)


def test_audio_of_a_diffusion_stage_lies_on_the_output_itself(
    request_: OpenRequest, recorder: Any
) -> None:
    import torch
    from vllm_omni.outputs import OmniRequestOutput

    output = OmniRequestOutput.from_diffusion(
        request_id="speech",
        images=[],
        multimodal_output={"audio": torch.zeros(2, 48000), "audio_sample_rate": 48000},
        final_output_type="audio",
    )
    output.stage_id, output.replica_id = 0, 1
    _observe(request_, output)
    request_.end(None)
    packet = recorder.only(MediaPacket)
    assert (packet.samples, packet.sample_rate, packet.streamed) == (48000, 48000, False)
    assert recorder.only(AudioFinished).duration_seconds == 1.0


def test_sound_track_of_a_video_is_no_audio_output(request_: OpenRequest, recorder: Any) -> None:
    import torch
    from vllm_omni.outputs import OmniRequestOutput

    output = OmniRequestOutput.from_diffusion(
        request_id="film",
        images=[],
        multimodal_output={"audio": torch.zeros(2, 48000), "fps": 24},
        final_output_type="video",
    )
    _observe(request_, output)
    request_.end(None)
    assert recorder.of(MediaPacket) == []
    assert recorder.of(AudioFinished) == []
    assert recorder.only(RequestFinished).outcome == "stop"


def test_text_output_is_delivered_and_its_reason_read(request_: OpenRequest, recorder: Any) -> None:
    from vllm.outputs import CompletionOutput, RequestOutput

    completion = CompletionOutput(
        index=0,
        text="hello",
        token_ids=[1],
        cumulative_logprob=None,
        logprobs=None,
        finish_reason="length",
    )
    processed = RequestOutput("chat", None, None, None, [completion], finished=True)
    _observe(request_, installed.client_output(processed, "chat", 0, 0, "text"))
    request_.end(None)
    assert recorder.of(AudioFinished) == []
    assert recorder.only(RequestFinished).outcome == "length"
