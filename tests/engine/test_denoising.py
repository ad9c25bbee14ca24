"""Executed denoising steps, counted at real noise schedulers in a runner's forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.engine import installed
from tests.engine.installed import SEAMS
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.diffusion import steps
from vllm_omni_metrics_plugin.patches.diffusion.steps import STEPS_KEY, take_steps
from vllm_omni_metrics_plugin.patches.table import ABSENT

LATENTS = torch.zeros(1, 4, 8, 8)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """As in a server, where the pipeline's schedulers load with its weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler  # noqa: F401


def output(**fields: Any) -> Any:
    from vllm_omni.diffusion.data import DiffusionOutput

    return DiffusionOutput(**fields)


def run(forward: Callable[[], None], *results: Any) -> list[int | None]:
    """The steps that each result carries after a forward pass that does ``forward``."""
    from vllm_omni.diffusion.worker.utils import BatchRunnerOutput, RunnerOutput

    results = results or (output(),)

    def execute(self: Any, reqs: Any, *, od_config: Any = None) -> Any:
        forward()
        return BatchRunnerOutput.from_list(
            [RunnerOutput(request_id=str(n), result=result) for n, result in enumerate(results)]
        )

    batch = steps.wrap_execute_requests(execute, None)(None, [], od_config=None)
    return [take_steps(one.result) for one in batch.runner_outputs]


def euler(steps: int) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return scheduler


def denoise(scheduler: Any) -> None:
    for t in scheduler.timesteps:
        scheduler.step(LATENTS, t, LATENTS)


@pytest.mark.parametrize("steps", [1, 7])
def test_every_step_of_the_scheduler_counts(steps: int) -> None:
    assert run(lambda: denoise(euler(steps))) == [steps]


def test_what_runs_counts_not_what_was_asked_for() -> None:
    from diffusers import HeunDiscreteScheduler

    scheduler = HeunDiscreteScheduler()
    scheduler.set_timesteps(5)
    assert run(lambda: denoise(scheduler)) == [9], "all but the last are done in two"


def test_edits_that_skip_the_first_steps_count_the_rest() -> None:
    scheduler = euler(10)
    scheduler.timesteps = scheduler.timesteps[6:]
    assert run(lambda: denoise(scheduler)) == [4]


def test_several_schedulers_are_the_parts_of_one_step() -> None:
    def sound_and_picture() -> None:
        denoise(euler(4))
        denoise(euler(6))

    assert run(sound_and_picture) == [6]


def test_schedulers_that_were_freed_are_not_taken_for_one() -> None:
    def one_after_another() -> None:
        for _ in range(20):
            denoise(euler(2))

    assert run(one_after_another) == [2]


def test_copy_for_each_request_counts_like_the_original() -> None:
    assert run(lambda: denoise(copy.deepcopy(euler(3)))) == [3]


@pytest.mark.skipif(installed.before("0.26.0"), reason="has no scheduler of its own")
def test_scheduler_that_calls_its_parent_class_counts_once() -> None:
    from vllm_omni.diffusion.models.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    class Child(FlowMatchEulerDiscreteScheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return super().step(*args, **kwargs)

    scheduler = Child()
    scheduler.set_timesteps(5)
    steps._counting.modules_seen = 0  # it came without a module of its own
    assert run(lambda: denoise(scheduler)) == [5]


def test_schedulers_that_are_not_of_diffusers_count_too() -> None:
    from vllm_omni.diffusion.models.wan2_2.scheduling_wan_euler import WanEulerScheduler

    scheduler = WanEulerScheduler()
    scheduler.set_timesteps(5, device="cpu")
    assert run(lambda: denoise(scheduler)) == [5]


@pytest.mark.parametrize("lance", [False, True], ids=["bagel", "lance"])
def test_model_with_a_loop_of_its_own_counts_each_turn_of_it(lance: bool) -> None:
    from vllm_omni.diffusion.models.bagel.bagel_transformer import Bagel
    from vllm_omni.diffusion.models.lance.lance_transformer import LanceBagel

    turns = 0

    class Model(LanceBagel if lance else Bagel):  # type: ignore[misc]
        _sp_size = 1

        def __init__(self) -> None:
            """Without weights."""

        def forward(self, x_t: Any, **_: Any) -> Any:
            nonlocal turns
            turns += 1
            return torch.zeros_like(x_t)

    texts_and_places = (
        *("packed_text_ids", "packed_text_indexes", "packed_vae_position_ids"),
        *("packed_vae_token_indexes", "packed_position_ids", "past_key_values"),
    )
    noise = {"packed_init_noises": LATENTS[0, 0], "packed_seqlens": torch.tensor([2 + 8])}

    def paint() -> None:
        Model().generate_image(**dict.fromkeys(texts_and_places), **noise, num_timesteps=5)

    steps._counting.modules_seen = 0  # the model came after the schedulers
    assert run(paint) == [turns]
    assert turns > 1


def test_requests_that_share_a_pass_share_its_steps_and_keep_their_own_durations() -> None:
    shared = {"vae.decode": 0.5}
    results = [output(stage_durations=shared) for _ in range(2)]
    assert run(lambda: denoise(euler(3)), *results) == [3, 3]
    assert shared == {"vae.decode": 0.5}
    assert [result.stage_durations for result in results] == [shared, shared]


def test_output_without_durations_gets_some() -> None:
    assert run(lambda: denoise(euler(3)), output(stage_durations=None)) == [3]


def test_engine_that_runs_one_request_at_a_time_counts_too() -> None:
    def execute_model(self: Any, req: Any) -> Any:
        denoise(euler(req))
        return output()

    assert take_steps(steps.wrap_execute_request(execute_model, None)(None, 4)) == 4
    with pytest.raises(TypeError):
        steps.wrap_execute_request(execute_model, None)(None, None)
    assert (steps._counting.steps, steps._counting.schedulers) == (None, [])


def test_pass_without_a_scheduler_says_nothing() -> None:
    assert run(lambda: None) == [None]


@pytest.mark.parametrize("fields", [{"error": "out of memory"}, {"aborted": True}])
def test_failed_and_cancelled_outputs_carry_no_steps(fields: dict[str, Any]) -> None:
    assert run(lambda: denoise(euler(3)), output(**fields)) == [None]


def test_steps_of_one_pass_are_not_in_the_next_even_if_it_raised() -> None:
    def broken() -> None:
        denoise(euler(3))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(broken)
    assert (steps._counting.steps, steps._counting.schedulers) == (None, [])
    denoise(euler(5))  # outside of any pass
    assert run(lambda: denoise(euler(2))) == [2]


@pytest.mark.parametrize(("in_chunk", "steps"), [(None, 7), (4, None)])
def test_stepwise_execution_says_how_many_it_has_done(
    seams: Patches, in_chunk: int | None, steps: int | None
) -> None:
    from types import SimpleNamespace

    from vllm_omni.diffusion.worker.diffusion_model_runner import DiffusionModelRunner

    seam = next((seam for seam in SEAMS if seam.name == "denoising_stepwise"), None)
    if seam is None:
        pytest.skip(ABSENT["denoising_stepwise"])
    state = installed.step_request_state()
    state.step_index, state.chunk_num_steps = 7, in_chunk
    result = output()
    runner: Any = SimpleNamespace(pipeline=SimpleNamespace())
    attach = getattr(DiffusionModelRunner, seam.attribute.partition(".")[2])
    attach(runner, state, result, **installed.primary())
    assert take_steps(result) == steps


def test_steps_are_taken_out_of_the_output() -> None:
    result = output(stage_durations={STEPS_KEY: 4.0, "vae.decode": 0.5})
    assert take_steps(result) == 4
    assert result.stage_durations == {"vae.decode": 0.5}
    assert take_steps(result) is None
