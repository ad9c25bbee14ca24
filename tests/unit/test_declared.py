"""How much a request asks of each stage, by what the engine was told of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin.hooks import Demand
from vllm_omni_metrics_plugin.patches.declared import declared

TOKENS = SimpleNamespace(max_tokens=64)
IMAGE = {
    **{"num_inference_steps": 20, "height": 512, "width": 256},
    **{"num_frames": 1, "num_outputs_per_prompt": 1, "sigmas": None},
}


def demands(*params: Any, **state: Any) -> tuple[Demand, ...]:
    return declared(SimpleNamespace(sampling_params_list=list(params), **state))


@pytest.mark.parametrize(
    ("changes", "steps", "pixels"),
    [
        ({}, 20, 512 * 256),
        ({"num_outputs_per_prompt": 3, "num_frames": 9}, 20, 27 * 512 * 256),
        ({"sigmas": [1.0, 0.5, 0.1], "num_inference_steps": None}, 3, 512 * 256),
        ({"num_inference_steps": None}, None, 512 * 256),
        ({"num_inference_steps": True}, None, 512 * 256),
        ({"height": None}, 20, None),
        ({"width": None}, 20, None),
        ({"width": 0}, 20, None),
        ({"height": "512"}, 20, None),
        ({"num_frames": float("nan")}, 20, None),
    ],
)
def test_diffusion_is_asked_for_steps_and_the_pixels_of_all_frames_and_images(
    changes: dict[str, Any], steps: int | None, pixels: int | None
) -> None:
    params = SimpleNamespace(**IMAGE | changes)
    assert demands(params) == (Demand(steps=steps, pixels=pixels),)


def test_tokens_are_asked_for_by_their_limit() -> None:
    nothing = (SimpleNamespace(max_tokens=None), SimpleNamespace(), None)
    assert demands(TOKENS, *nothing) == (Demand(tokens=64), *[Demand()] * 3)


@pytest.mark.parametrize(("state", "stages"), [({"final_stage_id": 1}, 2), ({}, 3)])
def test_stages_after_the_last_one_of_the_request_are_asked_for_nothing(
    state: dict[str, int], stages: int
) -> None:
    assert demands(TOKENS, TOKENS, TOKENS, **state) == (Demand(tokens=64),) * stages
