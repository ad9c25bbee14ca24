"""First admission and end, at the schedulers of the installed engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel.frames import EndedRecord, StartedRecord
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.state import EngineState


@pytest.fixture
def told(state: EngineState) -> list[Any]:
    told: list[Any] = []
    state.report = told.append
    return told


def starts(told: list[Any]) -> list[str]:
    return [record.request_id for record in told if isinstance(record, StartedRecord)]


def ends(told: list[Any]) -> list[str]:
    return [record.request_id for record in told if isinstance(record, EndedRecord)]


def request(request_id: str) -> Any:
    from vllm_omni.diffusion.request import OmniDiffusionRequest
    from vllm_omni.inputs.data import OmniDiffusionSamplingParams

    params = OmniDiffusionSamplingParams(num_inference_steps=3)
    names = OmniDiffusionRequest.__dataclass_fields__
    prompt = {"prompts": ["a picture"]} if "prompts" in names else {"prompt": "a picture"}
    ids = {"request_ids": [request_id]} if "request_ids" in names else {}
    return OmniDiffusionRequest(**prompt, **ids, sampling_params=params, request_id=request_id)


@pytest.fixture
def diffusion(seams: Patches, told: list[Any]) -> Any:
    """A real scheduler of the diffusion engine, two at a time."""
    from vllm_omni.diffusion.sched import RequestScheduler

    scheduler = RequestScheduler()
    scheduler.initialize(SimpleNamespace(max_num_seqs=2, stage_id=1))
    return scheduler


def test_diffusion_engine_starts_and_ends_each_request_once(
    diffusion: Any, told: list[Any]
) -> None:
    for name in "abc":
        diffusion.add_request(request(name))
    step = diffusion.schedule()
    assert starts(told) == ["a", "b"]
    diffusion.schedule()
    assert starts(told) == ["a", "b"], "they go on"
    diffusion._finish_requests(dict.fromkeys("ab", _status("FINISHED_COMPLETED")))
    assert sorted(ends(told)) == ["a", "b"]
    assert step.num_running_reqs == 2
    for name in "ab":
        diffusion.pop_request_state(name)
    diffusion.schedule()
    assert starts(told) == ["a", "b", "c"]
    assert {record.stage for record in told} == {1}
    assert [record.others for record in told if isinstance(record, StartedRecord)] == [0, 1, 0]
    assert internal_errors.errors.counts() == {}


def test_aborted_request_ends_at_the_scheduler_and_one_that_waited_has_nothing_to_end(
    diffusion: Any, told: list[Any]
) -> None:
    for name in "abc":
        diffusion.add_request(request(name))
    diffusion.schedule()
    for name in "ac":
        diffusion.finish_requests(name, _status("FINISHED_ABORTED"))
    assert ends(told) == ["a"]
    assert starts(told) == ["a", "b"]


def _status(name: str) -> Any:
    from vllm_omni.diffusion.sched.interface import DiffusionRequestStatus

    return getattr(DiffusionRequestStatus, name)


@pytest.mark.parametrize("kind", ["ar", "generation"])
def test_schedulers_of_tokens_tell_the_first_admission(
    seams: Patches, told: list[Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The wrapper on the real class, over what the classes beneath would have made."""
    if kind == "ar":
        from vllm_omni.core.sched.omni_ar_scheduler import OmniARScheduler as Scheduler
    else:
        from vllm_omni.core.sched.omni_generation_scheduler import (
            OmniGenerationScheduler as Scheduler,
        )

    placed: Any = Scheduler.schedule
    switch = placed.__omni_metrics_applied__.switch
    inner = switch.call.__wrapped__
    assert inner.__qualname__.startswith(Scheduler.__name__), "the engine's own is beneath"
    from vllm.v1.request import Request

    known = Request.__new__(Request)
    scheduler: Any = SimpleNamespace(
        requests={"a": known},
        vllm_config=SimpleNamespace(model_config=SimpleNamespace(stage_id=1)),
    )
    step = SimpleNamespace(scheduled_new_reqs=[SimpleNamespace(req_id="a")])
    from vllm_omni_metrics_plugin.patches import schedulers

    seam_state = next(
        cell.cell_contents
        for cell in switch.call.__closure__
        if isinstance(cell.cell_contents, EngineState)
    )
    schedule = schedulers.wrap_schedule(lambda self: step, seam_state)
    for _ in range(2):
        schedule(scheduler)
    assert starts(told) == ["a"]
    assert internal_errors.errors.counts() == {}
