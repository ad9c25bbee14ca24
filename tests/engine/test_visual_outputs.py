"""Every form of image and video that the engine's own pipelines make, from their own code.

Each case takes a tensor as a pipeline's decoder leaves it through the pipeline's own function for
postprocessing and the engine's formatter. What we count is then compared with what the engine's
own endpoints take out of the same output to encode it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from testbed.paths import MODELS
from vllm_omni_metrics_plugin.hooks import ImageFinished, VideoFinished
from vllm_omni_metrics_plugin.patches.asked import Asked
from vllm_omni_metrics_plugin.patches.diffusion import outputs
from vllm_omni_metrics_plugin.requests.encoding import encoding
from vllm_omni_metrics_plugin.requests.request import OpenRequest
from vllm_omni_metrics_plugin.requests.state import OpenRequests

MODELS_OF_THE_ENGINE = "vllm_omni.diffusion.models."
WIDTH, HEIGHT = 48, 32
FRAMES = 5


@dataclass(frozen=True)
class Case:
    """A pipeline class of the engine's registry, and what its decoder hands over."""

    pipeline: str
    module: str
    function: str
    decoded: Callable[[], Any]
    images: int = 0
    videos: int = 0
    frames: int = 0
    #: Hz, as the output states it.
    frame_rate: float | None = None
    output_type: str | None = None
    note: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.pipeline, self.output_type, self.note)))


def images(count: int) -> Callable[[], torch.Tensor]:
    """``[batch, channels, height, width]`` in [-1, 1]."""
    return lambda: torch.rand(count, 3, HEIGHT, WIDTH) * 2 - 1


def video(batch: int = 1) -> Callable[[], torch.Tensor]:
    """``[batch, channels, frames, height, width]`` in [-1, 1]."""
    return lambda: torch.rand(batch, 3, FRAMES, HEIGHT, WIDTH) * 2 - 1


def frames_behind(batch: int = 1) -> Callable[[], torch.Tensor]:
    """``[batch, frames, height, width, channels]``, 8 bit."""
    return lambda: torch.zeros(batch, FRAMES, HEIGHT, WIDTH, 3, dtype=torch.uint8)


def mp4(frames: int = FRAMES) -> bytes:
    from vllm_omni.entrypoints.openai.video_api_utils import _encode_video_bytes

    encoded: bytes = _encode_video_bytes(np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8), fps=8)
    return encoded


def picture() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT))


def of(pipeline: str, module: str, function: str, decoded: Callable[[], Any], **more: Any) -> Case:
    return Case(pipeline, module, f"get_{function}_post_process_func", decoded, **more)


IMAGE_CASES = [
    of("QwenImagePipeline", "qwen_image.pipeline_qwen_image", "qwen_image", images(3), images=3),
    of(
        "QwenImagePipeline",
        "qwen_image.pipeline_qwen_image",
        "qwen_image",
        lambda: {"payload": {"image": images(2)()}, "metadata": {}},
        images=2,
        note="in an envelope",
    ),
    of(
        "QwenImageEditPipeline",
        "qwen_image.pipeline_qwen_image_edit",
        "qwen_image_edit",
        images(1),
        images=1,
    ),
    of("FluxPipeline", "flux.pipeline_flux", "flux", images(2), images=2),
    of("FluxKontextPipeline", "flux.pipeline_flux_kontext", "flux_kontext", images(1), images=1),
    of("Flux2Pipeline", "flux2.pipeline_flux2", "flux2", images(2), images=2),
    of("StableDiffusion3Pipeline", "sd3.pipeline_sd3", "sd3_image", images(2), images=2),
    of("StableDiffusionXLPipeline", "sdxl.pipeline_sdxl", "sdxl_image", images(2), images=2),
    of("GlmImagePipeline", "glm_image.pipeline_glm_image", "glm_image", images(1), images=1),
    of("OmniGen2Pipeline", "omnigen2.pipeline_omnigen2", "omnigen2", images(1), images=1),
    of("AnimaPipeline", "anima.pipeline_anima", "anima", images(1), images=1),
    of(
        "HunyuanImage3ForCausalMM",
        "hunyuan_image3.pipeline_hunyuan_image3",
        "hunyuan_image3",
        images(2),
        images=2,
    ),
    of(
        "HunyuanImage3ForCausalMM",
        "hunyuan_image3.pipeline_hunyuan_image3",
        "hunyuan_image3",
        lambda: {"payload": {"image": images(1)()[0]}, "metadata": {}},
        images=1,
        note="one without a batch",
    ),
    of("BagelPipeline", "bagel.pipeline_bagel", "bagel", picture, images=1),
    of(
        "SenseNovaU1Pipeline",
        "sensenova_u1.pipeline_sensenova_u1",
        "sensenova_u1",
        picture,
        images=1,
    ),
    of(
        "HiDreamO1ImagePipeline",
        "hidream_o1_image.pipeline_hidream_o1_image",
        "hidream_o1_image",
        lambda: (torch.zeros(1, 2, 3 * 32 * 32), 32, 64),
        images=1,
    ),
    of(
        "MingImageLayeredDiffusionPipeline",
        "ming_image.pipeline",
        "ming_image",
        lambda: torch.rand(1, 4, 3, HEIGHT, WIDTH),
        images=3,
        note="layers",
    ),
    of(
        "WanPipeline",
        "wan2_2.pipeline_wan2_2",
        "wan22",
        video(2),
        images=2,
        note="asked for images",
    ),
    # Pipelines without a function of their own.
    Case(
        "QwenImageLayeredPipeline",
        "",
        "",
        lambda: [[picture(), picture()], [picture(), picture()]],
        images=4,
        note="layers of two images",
    ),
    of(
        "LingBotVideoPipeline",
        "lingbot_video.pipeline_lingbot_video",
        "lingbot_video",
        lambda: {"image": torch.rand(HEIGHT, WIDTH, 3)},
        images=1,
        note="text to image",
    ),
    of(
        "Cosmos3OmniPipeline",
        "cosmos3.pipeline_cosmos3",
        "cosmos3",
        lambda: {"image": torch.rand(1, 3, 1, HEIGHT, WIDTH)},
        images=1,
        note="text to image",
    ),
]

WAN = ("wan2_2.pipeline_wan2_2", "wan22")
VIDEO_CASES = [
    *(
        of("WanPipeline", *WAN, video(batch), videos=batch, frames=batch * FRAMES, output_type=kind)
        for batch in (1, 2)
        for kind in ("np", "pil", "pt")
    ),
    of("WanPipeline", *WAN, lambda: [mp4(7)], videos=1, frames=7, note="encoded by the worker"),
    of(
        "WanImageToVideoPipeline",
        "wan2_2.pipeline_wan2_2_i2v",
        "wan22_i2v",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "WanVACEPipeline",
        "wan2_2.pipeline_wan2_2_vace",
        "wan22_vace",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "WanS2VPipeline",
        "wan2_2.pipeline_wan2_2_s2v",
        "wan22_s2v",
        lambda: (video()(), np.zeros(16000, np.float32), 16000),
        videos=1,
        frames=FRAMES,
        frame_rate=16,
        note="with audio",
    ),
    of(
        "WanS2VPipeline",
        "wan2_2.pipeline_wan2_2_s2v",
        "wan22_s2v",
        lambda: ([mp4(6)], None, 16000),
        videos=1,
        frames=6,
        frame_rate=16,
        note="encoded by the worker",
    ),
    of("HeliosPipeline", "helios.pipeline_helios", "helios", video(), videos=1, frames=FRAMES),
    of(
        "HunyuanVideo15Pipeline",
        "hunyuan_video.pipeline_hunyuan_video_1_5",
        "hunyuan_video_15",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "SanaVideoPipeline",
        "sana_video.pipeline_sana_video",
        "sana_video",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "LingBotWorldCausalDMDPipeline",
        "lingbot_world.pipeline",
        "lingbot_world",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "LingBotVideoPipeline",
        "lingbot_video.pipeline_lingbot_video",
        "lingbot_video",
        lambda: {"video": torch.rand(FRAMES, HEIGHT, WIDTH, 3)},
        videos=1,
        frames=FRAMES,
    ),
    of(
        "LongCatVideoAvatarPipeline",
        "longcat_video.pipeline_longcat_video_avatar",
        "longcat_video_avatar",
        lambda: np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.float32),
        videos=1,
        frames=FRAMES,
        frame_rate=25,
    ),
    of(
        "LTX2Pipeline",
        "ltx2.ltx2_components",
        "ltx2",
        lambda: (frames_behind()(), torch.zeros(1, 2, 24000)),
        videos=1,
        frames=FRAMES,
        note="with audio",
    ),
    of(
        "MiniMaxH3Pipeline",
        "minimax_h3.pipeline_minimax_h3",
        "minimax_h3",
        lambda: (frames_behind(2)(), torch.zeros(2, 1, 24000)),
        videos=2,
        frames=2 * FRAMES,
        frame_rate=24,
        note="with audio",
    ),
    of(
        "Magi2Pipeline",
        "magi2.pipeline_magi2",
        "magi2",
        lambda: {
            "payload": {"video": frames_behind()()[0].numpy(), "audio": np.zeros(100)},
            "metadata": {"video": {"fps": 12.5}, "audio": {"sample_rate": 44100}},
        },
        videos=1,
        frames=FRAMES,
        frame_rate=12.5,
        note="with audio",
    ),
    of(
        "Cosmos3OmniPipeline",
        "cosmos3.pipeline_cosmos3",
        "cosmos3",
        video(),
        videos=1,
        frames=FRAMES,
    ),
    of(
        "Cosmos3OmniPipeline",
        "cosmos3.pipeline_cosmos3",
        "cosmos3",
        lambda: {"video": video()(), "audio": torch.zeros(1, 100), "audio_sample_rate": 48000},
        videos=1,
        frames=FRAMES,
        frame_rate=24,
        note="with audio",
    ),
    # Pipelines without a function of their own.
    Case(
        "SanaWmPipeline",
        "",
        "",
        lambda: {"payload": {"video": np.zeros((1, FRAMES, HEIGHT, WIDTH, 3))}, "metadata": {}},
        videos=1,
        frames=FRAMES,
    ),
]


def formatted(case: Case) -> Any:
    """The output that the engine would send for what the pipeline's decoder left."""
    from vllm_omni.diffusion.data import DiffusionOutput
    from vllm_omni.diffusion.output_formatter import (
        format_diffusion_outputs,
        normalize_diffusion_postprocess_output,
    )
    from vllm_omni.diffusion.request import OmniDiffusionRequest
    from vllm_omni.inputs.data import OmniDiffusionSamplingParams

    config: Any = SimpleNamespace(
        model=str(MODELS / "qwen-image"),  # some look at the decoder's settings
        model_class_name=case.pipeline,
        output_type=None,
        diffusion_load_format="default",
        revision=None,
        enable_guardrails=False,
        model_config={},
        extra_args={},
    )
    params = OmniDiffusionSamplingParams(output_type=case.output_type, num_outputs_per_prompt=1)
    params.extra_args["guardrails"] = False
    decoded = case.decoded()
    processed = decoded
    if case.function:
        module = importlib.import_module(MODELS_OF_THE_ENGINE + case.module)
        postprocess = getattr(module, case.function)(config)
        kwargs = {}
        if "sampling_params" in inspect.signature(postprocess).parameters:
            kwargs["sampling_params"] = params
        processed = postprocess(decoded, **kwargs)
    request = OmniDiffusionRequest(prompt="x", sampling_params=params, request_id="a")
    [output] = format_diffusion_outputs(
        request=request,
        od_config=config,
        diffusion_output=DiffusionOutput(output=decoded),
        output_data=decoded,
        postprocess_output=normalize_diffusion_postprocess_output(processed),
    )
    output.stage_id, output.replica_id = 0, 0
    return output


@pytest.fixture
def request_(hooks: Any) -> OpenRequest:
    opened = OpenRequests(hooks).begin("a", "a", "tiny", 0.0)
    opened.delivered = True
    return opened


@pytest.mark.parametrize("case", IMAGE_CASES, ids=str)
def test_images_of_the_engines_pipelines_are_counted_as_its_endpoint_sends_them(
    case: Case, request_: OpenRequest, recorder: Any
) -> None:
    from vllm_omni.entrypoints.openai.images.helpers import _extract_images_from_result

    output = formatted(case)
    outputs.observe(request_, output, Asked({"prompt": "x", "modalities": ["image"]}))
    request_.end(None)

    sent = _extract_images_from_result(output)
    found = recorder.only(ImageFinished)
    assert (found.images, found.unknown_form) == (case.images, False)
    assert len(sent) == case.images
    assert list(found.pixels) == [image.size[0] * image.size[1] for image in sent]


@pytest.mark.parametrize("case", VIDEO_CASES, ids=str)
def test_videos_of_the_engines_pipelines_are_counted_as_its_endpoint_encodes_them(
    case: Case, request_: OpenRequest, recorder: Any
) -> None:
    from vllm_omni.diffusion.utils.media_utils import count_mp4_frames
    from vllm_omni.entrypoints.openai.serving_video import OmniOpenAIServingVideo
    from vllm_omni.entrypoints.openai.video_api_utils import _coerce_video_to_frames

    endpoint = OmniOpenAIServingVideo(None)
    output = formatted(case)
    outputs.observe(request_, output, Asked())
    request_.end(None)

    encoded = [
        count_mp4_frames(one) if isinstance(one, bytes) else len(_coerce_video_to_frames(one))
        for one in endpoint._extract_video_outputs(output)
    ]
    found = recorder.only(VideoFinished)
    assert (found.videos, found.frames) == (case.videos, case.frames)
    assert (len(encoded), sum(encoded)) == (case.videos, case.frames)
    assert found.frame_rate == case.frame_rate == endpoint._resolve_fps(output)
    playing = case.frames / case.frame_rate if case.frame_rate else None
    assert found.duration_seconds == playing


def test_latents_are_neither_images_nor_videos(request_: OpenRequest, recorder: Any) -> None:
    latents = torch.zeros(1, 16, 3, 8, 8)  # three frames of latents look like three channels
    case = of("WanPipeline", *WAN, lambda: latents, output_type="latent")
    output = formatted(case)
    outputs.observe(request_, output, Asked(None, [SimpleNamespace(output_type="latent")]))
    request_.end(None)
    assert recorder.only(VideoFinished).frames is None


def test_frames_of_the_diffusers_adapter_are_a_video_to_the_video_endpoint(
    request_: OpenRequest, recorder: Any
) -> None:
    frames = Case("DiffusersAdapterPipeline", "", "", lambda: [[picture()] * FRAMES])
    output = formatted(frames)
    assert output.final_output_type == "image"
    with encoding() as endpoint:
        outputs.observe(request_, output, Asked())
        request_.end(None)
        endpoint.encodes_at(24.0)
    assert recorder.only(VideoFinished).frames == FRAMES


def test_interpolated_frames_play_faster(request_: OpenRequest, recorder: Any) -> None:
    case = of("WanPipeline", *WAN, video(), videos=1)
    output = formatted(case)
    output.multimodal_output["metadata"] = {"video": {"video_fps_multiplier": 2}}
    outputs.observe(request_, output, Asked())
    request_.end(None, requested_frame_rates={0: 8.0})
    assert recorder.only(VideoFinished).frame_rate == 16.0


def test_video_that_is_labelled_as_an_image_is_one_to_the_video_endpoint(
    request_: OpenRequest, recorder: Any
) -> None:
    output = formatted(of("WanPipeline", *WAN, video()))
    output.final_output_type = "image"
    with encoding() as endpoint:
        outputs.observe(request_, output, Asked())
        request_.end(None)
        assert recorder.of(VideoFinished) == []
        endpoint.encodes_at(10.0)
    assert recorder.of(ImageFinished) == []
    assert recorder.only(VideoFinished).duration_seconds == FRAMES / 10.0


def test_pipelines_of_the_registry_are_all_in_the_documents_table() -> None:
    from vllm_omni.diffusion.registry import _DIFFUSION_MODELS

    from testbed.paths import ROOT

    table = (ROOT / "docs" / "reference" / "visual-outputs.md").read_text()
    assert [name for name in _DIFFUSION_MODELS if f"`{name}`" not in table] == []
