"""Events about images, videos and diffusion engines in, samples out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.feed import WORK, Feed
from vllm_omni_metrics_plugin.hooks import DiffusionWork, ReplicaLeft
from vllm_omni_metrics_plugin.testing import make_event

STAGE = {"model_name": "tiny", "stage": "1", "replica": "3"}
IMAGE = ("image_ttfp_seconds", "image_num_total", "image_generation_time_seconds", "image_pixels")
VIDEO = (
    "video_generation_time_seconds",
    "video_duration_seconds",
    "video_rtf",
    "video_frames_total",
)
TIMINGS = ("preprocess", "exec", "postprocess", "step")


@pytest.fixture(autouse=True)
def _joined(exposed: Any) -> None:
    exposed.join()


def test_images_are_counted_and_sized_each(feed: Feed, exposed: Any) -> None:
    feed.finish_image()
    feed.finish_image(images=1, pixels=(65537,))
    assert exposed.value("image_num_total", **STAGE) == 3
    assert exposed.value("image_pixels_count", **STAGE) == 3
    assert exposed.value("image_pixels_sum", **STAGE) == 65536 + 1048576 + 65537
    assert exposed.value("image_pixels_bucket", **STAGE, le="65536.0") == 1
    assert exposed.value("image_pixels_bucket", **STAGE, le="131072.0") == 2
    assert exposed.value("image_pixels_bucket", **STAGE, le="1.048576e+06") == 3
    assert exposed.missing() == {}


def test_first_image_and_generation_are_timed_once_per_request(feed: Feed, exposed: Any) -> None:
    feed.finish_image()
    assert exposed.value("image_ttfp_seconds_count", **STAGE) == 1
    assert exposed.value("image_ttfp_seconds_sum", **STAGE) == 1.5
    assert exposed.value("image_generation_time_seconds_count", **STAGE) == 1
    assert exposed.value("image_generation_time_seconds_sum", **STAGE) == 1.25


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"replica": None}, "unknown_replica"),
        ({"images": 0, "pixels": (), "first_image_seconds": None}, "no_image"),
        (
            {"images": 0, "pixels": (), "first_image_seconds": None, "unknown_form": True},
            "unknown_form",
        ),
    ],
)
def test_request_for_images_that_cannot_be_measured_is_missing_in_every_family(
    feed: Feed, exposed: Any, changes: dict[str, Any], reason: str
) -> None:
    feed.finish_image(**changes)
    assert exposed.missing() == {(family, reason): 1 for family in IMAGE}
    for family in ("image_num_total", "image_pixels_count", "image_ttfp_seconds_count"):
        assert not exposed.value(family, **STAGE)


def test_images_are_counted_without_a_generation_time(feed: Feed, exposed: Any) -> None:
    feed.finish_image(generation_seconds=None)
    assert exposed.value("image_num_total", **STAGE) == 2
    assert exposed.value("image_generation_time_seconds_count", **STAGE) == 0
    assert exposed.missing() == {("image_generation_time_seconds", "no_generation_time"): 1}


def test_images_beside_something_unknown_are_counted_and_the_rest_is_missing(
    feed: Feed, exposed: Any
) -> None:
    feed.finish_image(unknown_form=True)
    assert exposed.value("image_num_total", **STAGE) == 2
    assert exposed.missing() == {
        ("image_num_total", "unknown_form"): 1,
        ("image_pixels", "unknown_form"): 1,
    }


def test_video_has_frames_playing_time_and_real_time_factor(feed: Feed, exposed: Any) -> None:
    feed.finish_video()
    feed.finish_video(frames=16, duration_seconds=1.0, generation_seconds=0.5)
    assert exposed.value("video_frames_total", **STAGE) == 64
    assert exposed.value("video_duration_seconds_sum", **STAGE) == 4.0
    assert exposed.value("video_generation_time_seconds_sum", **STAGE) == 12.5
    assert exposed.value("video_rtf_sum", **STAGE) == 4.5
    assert exposed.value("video_rtf_bucket", **STAGE, le="1.0") == 1
    assert exposed.missing() == {}


def test_video_without_a_frame_rate_has_frames_but_no_playing_time(
    feed: Feed, exposed: Any
) -> None:
    feed.finish_video(frame_rate=None, duration_seconds=None)
    assert exposed.value("video_frames_total", **STAGE) == 48
    assert exposed.value("video_generation_time_seconds_count", **STAGE) == 1
    assert exposed.value("video_duration_seconds_count", **STAGE) == 0
    assert exposed.value("video_rtf_count", **STAGE) == 0
    assert exposed.missing() == {
        ("video_duration_seconds", "no_frame_rate"): 1,
        ("video_rtf", "no_frame_rate"): 1,
    }


def test_video_without_a_generation_time_has_a_playing_time(feed: Feed, exposed: Any) -> None:
    feed.finish_video(generation_seconds=None)
    assert exposed.value("video_duration_seconds_sum", **STAGE) == 3.0
    assert exposed.missing() == {
        ("video_generation_time_seconds", "no_generation_time"): 1,
        ("video_rtf", "no_generation_time"): 1,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"replica": None}, "unknown_replica"),
        ({"frames": 0, "duration_seconds": None}, "no_frames"),
        ({"frames": None, "duration_seconds": None}, "unknown_form"),
    ],
)
def test_video_that_cannot_be_measured_is_missing_in_every_family(
    feed: Feed, exposed: Any, changes: dict[str, Any], reason: str
) -> None:
    feed.finish_video(**changes)
    assert exposed.missing() == {(family, reason): 1 for family in VIDEO}


def test_diffusion_engines_timings_are_exposed_in_milliseconds(feed: Feed, exposed: Any) -> None:
    feed.finish_stage()
    sums = {name: exposed.value(f"diffusion_{name}_time_ms_sum", **STAGE) for name in TIMINGS}
    assert sums == pytest.approx({"preprocess": 1, "exec": 750, "postprocess": 20, "step": 775})
    assert exposed.value("diffusion_steps_total", **STAGE) == 20
    assert exposed.missing() == {}


PROFILED = {
    "diffusion_text_encode_seconds": 0.0625,
    "diffusion_forward_seconds": 0.5,
    "denoise_step_latency_seconds": 0.025,
    "vae_decode_seconds": 0.125,
}


def test_profilers_parts_are_exposed_in_seconds(feed: Feed, exposed: Any) -> None:
    feed.finish_stage()
    feed.finish_stage()
    sums = {stem: exposed.value(f"{stem}_sum", **STAGE) for stem in PROFILED}
    assert sums == pytest.approx({stem: 2 * seconds for stem, seconds in PROFILED.items()})
    assert exposed.missing() == {}


def test_pipelines_without_a_profile_miss_no_sample_for_it(feed: Feed, exposed: Any) -> None:
    feed.finish_stage(diffusion=DiffusionWork(steps=4))
    for stem in PROFILED:
        assert exposed.value(f"{stem}_count", **STAGE) == 0
        assert stem not in {family for family, _ in exposed.missing()}
    assert exposed.value("peak_memory_bytes", **STAGE) is None, "nobody measured it"


def test_steps_of_each_request_are_distributed(feed: Feed, exposed: Any) -> None:
    for steps in (4, 4, 20):
        feed.finish_stage(diffusion=DiffusionWork(steps=steps))
    assert exposed.value("num_inference_steps_count", **STAGE) == 3
    assert exposed.value("num_inference_steps_sum", **STAGE) == 28
    assert exposed.value("num_inference_steps_bucket", **STAGE, le="2.0") == 0
    assert exposed.value("num_inference_steps_bucket", **STAGE, le="4.0") == 2
    assert exposed.value("diffusion_steps_total", **STAGE) == 28


def test_peak_of_memory_is_the_highest_until_the_replica_leaves(feed: Feed, exposed: Any) -> None:
    def peak() -> float | None:
        value: float | None = exposed.value("peak_memory_bytes", **STAGE)
        return value

    for reached, highest in ((300, 300), (200, 300), (None, 300), (400, 400)):
        feed.finish_stage(diffusion=DiffusionWork(steps=1, peak_memory_bytes=reached))
        assert peak() == highest
    feed.event(make_event(ReplicaLeft, model_name="tiny", stage=1, replica=3))
    assert peak() is None
    feed.finish_stage(diffusion=DiffusionWork(steps=1, peak_memory_bytes=100))
    assert peak() == 100, "who joins again begins anew"


def test_steps_and_timings_that_the_engine_does_not_give_are_missing(
    feed: Feed, exposed: Any
) -> None:
    feed.finish_stage(diffusion=DiffusionWork())
    assert exposed.missing() == {
        ("diffusion_exec_time_ms", "no_timing"): 1,
        ("diffusion_postprocess_time_ms", "no_timing"): 1,
        ("diffusion_step_time_ms", "no_timing"): 1,
        ("diffusion_steps_total", "not_seen"): 1,
        ("num_inference_steps", "not_seen"): 1,
    }


def test_pipelines_with_nothing_to_prepare_miss_no_sample_for_it(feed: Feed, exposed: Any) -> None:
    feed.finish_stage(diffusion=DiffusionWork(steps=4, exec_seconds=1.0, postprocess_seconds=0.5))
    assert exposed.value("diffusion_preprocess_time_ms_count", **STAGE) == 0
    assert ("diffusion_preprocess_time_ms", "no_timing") not in exposed.missing()


def test_zero_steps_are_a_measured_value(feed: Feed, exposed: Any) -> None:
    feed.finish_stage(diffusion=DiffusionWork(steps=0))
    assert exposed.value("diffusion_steps_total", **STAGE) == 0
    assert ("diffusion_steps_total", "not_seen") not in exposed.missing()


@pytest.mark.parametrize("changes", [{"diffusion": None}, {"model_name": None, "diffusion": WORK}])
def test_stages_without_diffusion_make_no_diffusion_series(
    feed: Feed, exposed: Any, changes: dict[str, Any]
) -> None:
    feed.finish_stage(**changes)
    assert exposed.value("diffusion_steps_total", **STAGE) is None
    assert exposed.missing() == {}
