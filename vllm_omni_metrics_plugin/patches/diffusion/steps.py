"""Counting the denoising steps that are executed, where they are executed.

The number that a request asks for is not what runs: pipelines have defaults, edits skip the first
steps, distilled models have schedules of their own. What runs is seen at the noise schedulers, one
call of ``step`` for each step; BAGEL, which has none, takes as many as its schedule has. The count
travels to the server in the output's ``stage_durations``, through whatever processes lie between,
and is taken out again there before anybody sees it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.seams.arguments import reading

#: In an output's ``stage_durations``.
STEPS_KEY = "omni_metrics.steps"

_ENGINES_MODELS = "vllm_omni.diffusion.models."
_BAGEL = f"{_ENGINES_MODELS}bagel.bagel_transformer"
_WRAPPED = "__omni_metrics_counts_steps__"


class _Counting(threading.local):
    """The steps of the forward pass that this thread is in."""

    def __init__(self) -> None:
        #: By scheduler, as some pipelines have several: one for each modality, or for each request.
        self.steps: dict[int, int] | None = None
        #: The schedulers themselves, so that none is taken for another that was freed.
        self.schedulers: list[Any] = []
        self.inside_step = False
        #: How many modules were loaded when their schedulers were last looked for.
        self.modules_seen = 0


_counting = _Counting()


@contextlib.contextmanager
def _counted_pass() -> Iterator[dict[int, int]]:
    """The steps that this thread makes meanwhile, by scheduler."""
    steps: dict[int, int] = {}
    with internal_errors.suppressed("watching the noise schedulers"):
        _watch_schedulers()
        _counting.steps, _counting.schedulers = steps, []
    try:
        yield steps
    finally:
        _counting.steps, _counting.schedulers = None, []


def wrap_execute_requests(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``DiffusionModelRunner._execute_request_list``: whole forward passes, for some requests.

    Those that share a pass share its steps.
    """

    @functools.wraps(original)
    def _execute_request_list(self: Any, reqs: Any, *args: Any, **kwargs: Any) -> Any:
        with _counted_pass() as steps:
            result = original(self, reqs, *args, **kwargs)
        with internal_errors.suppressed("counting denoising steps"):
            if steps:
                for output in result.runner_outputs:
                    _attach(output.result, max(steps.values()))
        return result

    return _execute_request_list


def wrap_execute_request(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``DiffusionModelRunner.execute_model`` up to 0.22: whole forward passes, for one request."""

    @functools.wraps(original)
    def execute_model(self: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        with _counted_pass() as steps:
            output = original(self, req, *args, **kwargs)
        with internal_errors.suppressed("counting denoising steps"):
            if steps:
                _attach(output, max(steps.values()))
        return output

    return execute_model


def wrap_stepwise_metadata(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``DiffusionModelRunner._attach_stepwise_metadata``: an engine that runs step by step.

    ``_attach_stepwise_metrics`` up to 0.28. Its request state counts them, except in chunks, where
    it counts those of the chunk alone.
    """

    @functools.wraps(original)
    def _attach_stepwise_metadata(
        self: Any, state: Any, output: Any, *args: Any, **kwargs: Any
    ) -> Any:
        result = original(self, state, output, *args, **kwargs)
        with internal_errors.suppressed("counting denoising steps"):
            if state.chunk_num_steps is None:
                _attach(output, state.step_index)
        return result

    return _attach_stepwise_metadata


def take_steps(output: Any) -> int | None:
    """The executed steps that an output carries, taken out of it; None if it carries none."""
    durations = getattr(output, "stage_durations", None)
    if not isinstance(durations, dict):
        return None
    steps = durations.pop(STEPS_KEY, None)
    return None if steps is None else int(steps)


def _attach(output: Any, steps: int) -> None:
    if output is not None and output.error is None and not output.aborted:
        # A new one, as the outputs of a batch may share theirs.
        output.stage_durations = {**(output.stage_durations or {}), STEPS_KEY: float(steps)}


def _watch_schedulers() -> None:
    """Wrap ``step`` of every scheduler class that is loaded; some load with their first pass."""
    if _counting.modules_seen == len(sys.modules):
        return
    schedulers = sys.modules.get("diffusers.schedulers.scheduling_utils")
    base = getattr(schedulers, "SchedulerMixin", None)
    for scheduler in [*_subclasses(base), *_schedulers_of_the_engine()]:
        step = vars(scheduler).get("step")
        if callable(step) and not hasattr(step, _WRAPPED):
            scheduler.step = _counted(step)
    bagel: Any = getattr(sys.modules.get(_BAGEL), "Bagel", None)
    generate = getattr(bagel, "generate_image", None)
    if generate is not None and not hasattr(generate, _WRAPPED):
        bagel.generate_image = _counted_loop(generate)
    _counting.modules_seen = len(sys.modules)


def _subclasses(cls: Any) -> Iterator[Any]:
    for subclass in cls.__subclasses__() if cls is not None else ():
        yield subclass
        yield from _subclasses(subclass)


def _schedulers_of_the_engine() -> Iterator[Any]:
    """Those of its own that do not derive from diffusers' base class."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_ENGINES_MODELS):
            for value in list(vars(module).values()):
                if isinstance(value, type) and "Scheduler" in value.__name__:
                    yield value


def _counted(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        counts = _counting.steps
        if counts is None or _counting.inside_step:
            return original(self, *args, **kwargs)
        _counting.inside_step = True  # a scheduler may step others, or its parent class, within
        try:
            result = original(self, *args, **kwargs)
        finally:
            _counting.inside_step = False
        _add(counts, self, 1)
        return result

    setattr(step, _WRAPPED, True)
    return step


def _counted_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Bagel.generate_image``, which takes its steps in a loop of its own, or raises."""
    read = reading(original, "num_timesteps")

    @functools.wraps(original)
    def generate_image(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        counts = _counting.steps
        if counts is not None:
            with internal_errors.suppressed("counting denoising steps"):
                (points,) = read(self, *args, **kwargs)
                if points is not None:
                    # The times that it goes through, and the steps are between them. Lance adds
                    # one, as BAGEL itself did up to 0.22.
                    one_more = getattr(self, "_denoise_schedule_extra_step", True)
                    _add(counts, self, points if one_more else points - 1)
        return result

    setattr(generate_image, _WRAPPED, True)
    return generate_image


def _add(counts: dict[int, int], stepper: Any, steps: int) -> None:
    key = id(stepper)
    if key not in counts:
        _counting.schedulers.append(stepper)
    counts[key] = counts.get(key, 0) + steps
