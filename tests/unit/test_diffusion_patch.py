"""What is read off the outputs of diffusion stages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import DiffusionWork, ImageFinished, VideoFinished
from vllm_omni_metrics_plugin.patches.asked import Asked
from vllm_omni_metrics_plugin.patches.diffusion.outputs import work_of
from vllm_omni_metrics_plugin.patches.diffusion.steps import STEPS_KEY
from vllm_omni_metrics_plugin.patches.outputs import observe
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests.request import OpenRequest

TIMINGS = {
    "preprocess_time_ms": 2.0,
    "diffusion_engine_exec_time_ms": 750.0,
    "output_ready_wait_time_ms": 4.0,
    "postprocess_time_ms": 20.0,
}


class Tensor:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


def output(**fields: Any) -> Any:
    usual: dict[str, Any] = {
        "final_output_type": "image",
        "finished": True,
        "images": [Tensor(64, 64, 3)],
        "multimodal_output": {},
        "custom_output": {},
        "metrics": dict(TIMINGS),
        "stage_durations": {STEPS_KEY: 20.0},
        "stage_id": 0,
        "replica_id": 1,
    }
    return SimpleNamespace(**{**usual, **fields})


@pytest.fixture
def request_(state: EngineState) -> OpenRequest:
    opened = state.requests.begin("a", "a", "tiny", 0.0)
    opened.delivered = True
    return opened


def test_engines_slices_become_seconds_and_their_sum_the_whole_step() -> None:
    work = work_of(output())
    assert (work.steps, work.preprocess_seconds, work.exec_seconds) == (20, 0.002, 0.75)
    assert work.postprocess_seconds == 0.02
    assert work.step_seconds == pytest.approx(0.776)


def test_nothing_to_prepare_is_no_preparation() -> None:
    work = work_of(output(metrics={**TIMINGS, "preprocess_time_ms": 0.0}))
    assert work.preprocess_seconds is None
    assert work.step_seconds == pytest.approx(0.774)


#: As the pipelines' profiler names its parts.
PROFILE = {
    STEPS_KEY: 20.0,
    "QwenImagePipeline.forward": 0.7,
    "QwenImagePipeline.text_encoder.forward": 0.03,
    "QwenImagePipeline.vae.encode": 9.0,
    "QwenImagePipeline.vae.decode": 0.1,
    "QwenImagePipeline.diffuse": 0.5,
}


def test_profilers_parts_are_seconds() -> None:
    work = work_of(output(stage_durations=dict(PROFILE)))
    assert work.text_encode_seconds == 0.03
    assert work.denoise_seconds == 0.5
    assert work.vae_decode_seconds == 0.1
    assert work.step_latency_seconds == 0.5 / 20


def test_parts_of_one_name_add_up_and_the_outer_one_holds_the_inner() -> None:
    durations = {**PROFILE, "Joint.audio.vae.decode": 0.25}
    assert work_of(output(stage_durations=durations)).vae_decode_seconds == 0.35
    durations = {**PROFILE, "Joint.encode_prompt": 0.05}
    assert work_of(output(stage_durations=durations)).text_encode_seconds == 0.05


@pytest.mark.parametrize(
    "durations",
    [None, {}, {STEPS_KEY: 20.0}, {"A.diffuse": "soon", "A.vae.decode": float("nan"), 3: 1.0}],
)
def test_pipeline_without_a_profile_has_no_parts(durations: Any) -> None:
    work = work_of(output(stage_durations=durations))
    parts = (work.text_encode_seconds, work.denoise_seconds, work.vae_decode_seconds)
    assert parts == (None, None, None)
    assert work.step_latency_seconds is None


@pytest.mark.parametrize("steps", [{}, {STEPS_KEY: 0.0}])
def test_step_latency_needs_steps(steps: dict[str, float]) -> None:
    work = work_of(output(stage_durations={"A.diffuse": 0.5, **steps}))
    assert (work.denoise_seconds, work.step_latency_seconds) == (0.5, None)


@pytest.mark.parametrize(
    ("stated", "peak"),
    [(1536.25, 1610874880), (0.0, None), (None, None), (float("inf"), None), (-1.0, None)],
)
def test_peak_memory_is_what_the_platform_says_or_nothing(
    stated: float | None, peak: int | None
) -> None:
    assert work_of(output(peak_memory_mb=stated)).peak_memory_bytes == peak


@pytest.mark.parametrize("metrics", [None, {}, dict.fromkeys(TIMINGS), {"image_num": 1}])
def test_engine_that_gives_no_timings_has_none(metrics: Any) -> None:
    assert work_of(output(metrics=metrics, stage_durations=None)) == DiffusionWork()


def test_last_chunk_of_a_streamed_video_does_not_pass_for_all_of_them() -> None:
    stream = {"metadata": {"stream": {"generation_chunk_index": 3}}}
    work = work_of(output(multimodal_output=stream))
    assert (work.postprocess_seconds, work.step_seconds) == (None, None)
    assert work.exec_seconds == 0.75
    first = {"metadata": {"stream": {"generation_chunk_index": 0}}}
    assert work_of(output(multimodal_output=first)).postprocess_seconds == 0.02


def test_steps_never_leave_for_the_client(request_: OpenRequest) -> None:
    part = output(finished=False, stage_durations={STEPS_KEY: 3.0, "vae.decode": 0.1})
    observe(request_, part)
    assert part.stage_durations == {"vae.decode": 0.1}


@pytest.mark.parametrize(
    ("output_type", "modalities", "video"),
    [
        ("image", ["image"], False),
        ("video", ["video"], True),
        ("video", None, True),
        ("image", None, False),
        ("video", ["image"], False),
        ("video", ["img2img"], False),
        ("video", ["image", "video"], True),
        ("videos", [], True),
    ],
)
def test_what_was_asked_for_decides_over_what_the_model_usually_makes(
    request_: OpenRequest, recorder: Any, output_type: str, modalities: Any, video: bool
) -> None:
    prompt = {"prompt": "x", "modalities": modalities}
    observe(request_, output(final_output_type=output_type), Asked(prompt))
    request_.end(None)
    assert bool(recorder.of(VideoFinished)) == video
    assert bool(recorder.of(ImageFinished)) != video


@pytest.mark.parametrize("prompt", [None, "x", ["x"], {"prompt": "x"}])
def test_prompts_of_any_kind_are_accepted(
    request_: OpenRequest, recorder: Any, prompt: Any
) -> None:
    observe(request_, output(), Asked(prompt))
    request_.end(None)
    assert recorder.only(ImageFinished).images == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"final_output_type": "text"},
        {"final_output_type": "audio"},
        {"final_output_type": None},
        {"finished": False, "custom_output": {"lifecycle": "started"}, "images": []},
    ],
)
def test_other_outputs_are_left_alone(
    request_: OpenRequest, recorder: Any, fields: dict[str, Any]
) -> None:
    observe(request_, output(**fields))
    assert request_.visual == {}


def test_video_beside_the_images_is_found(request_: OpenRequest, recorder: Any) -> None:
    video = {"video": Tensor(1, 9, 64, 64, 3), "fps": 8}
    observe(request_, output(images=[], multimodal_output=video))
    request_.end(None)
    assert recorder.only(VideoFinished).frames == 9


def test_latents_are_not_counted_whatever_they_look_like(
    request_: OpenRequest, recorder: Any
) -> None:
    observe(request_, output(), Asked(None, [SimpleNamespace(output_type="latent")]))
    request_.end(None)
    assert recorder.only(ImageFinished).unknown_form


def test_frame_rates_are_the_requests_own() -> None:
    params = [
        SimpleNamespace(),
        SimpleNamespace(resolved_frame_rate=None),
        SimpleNamespace(resolved_frame_rate=8.0),
        SimpleNamespace(resolved_frame_rate=0.0),
    ]
    assert Asked(None, params).frame_rates() == {2: 8.0}
    assert Asked().frame_rates() == {}
