"""Events about images and videos, told to whoever listens."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin.hooks import (
    DiffusionWork,
    ImageFinished,
    StageFinished,
    VideoFinished,
    plugins,
)

WORK = DiffusionWork(
    steps=20,
    preprocess_seconds=0.001,
    exec_seconds=0.75,
    postprocess_seconds=0.02,
    step_seconds=0.775,
)
_WHOSE = {"request_id": "a", "model_name": "tiny", "stage": 1, "replica": 3}


def finish_image(**changes: Any) -> None:
    fields: dict[str, Any] = {
        **_WHOSE,
        "images": 2,
        "pixels": (65536, 1048576),
        "unknown_form": False,
        "first_image_seconds": 1.5,
        "generation_seconds": 1.25,
        "diffusion": WORK,
    }
    plugins.hooks.omni_image_finished(ImageFinished(**{**fields, **changes}))


def finish_video(**changes: Any) -> None:
    fields: dict[str, Any] = {
        **_WHOSE,
        "videos": 1,
        "frames": 48,
        "frame_rate": 16.0,
        "duration_seconds": 3.0,
        "first_video_seconds": 13.0,
        "generation_seconds": 12.0,
        "diffusion": WORK,
    }
    plugins.hooks.omni_video_finished(VideoFinished(**{**fields, **changes}))


def finish_stage(**changes: Any) -> None:
    fields: dict[str, Any] = {
        **_WHOSE,
        "finished_at": 10.0,
        "generation_seconds": 1.25,
        "tokens_in": 0,
        "tokens_out": 0,
        "finish_reason": None,
        "diffusion": WORK,
    }
    plugins.hooks.omni_stage_finished(StageFinished(**{**fields, **changes}))
