"""The engine's bench client: what it saves has its figures under the server's names as well."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.compare import text
from vllm_omni_metrics_plugin.compare.result import NAMED, Result
from vllm_omni_metrics_plugin.patches.seams.seam import Seam

_TITLE = " Under the names of the server's families "


def wrap_command(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniBenchmarkServingSubcommand.cmd``: runs the bench and saves what it found."""

    @functools.wraps(original)
    def cmd(*args: Any, **kwargs: Any) -> Any:
        with internal_errors.suppressed("the bench's vocabulary"):
            _name_results()
        return original(*args, **kwargs)

    return cmd


def _name_results() -> None:
    """Wrap what runs the requests: ``vllm.benchmarks.serve.main_async`` saves what it returns."""
    serve: Any = importlib.import_module("vllm.benchmarks.serve")
    # Puts its own ``benchmark`` into the module above, so it has to come first.
    omni: Any = importlib.import_module("vllm_omni.benchmarks.patch.patch")
    measured: list[Any] = []
    omni.calculate_metrics = _wrap_calculate(omni.calculate_metrics, measured)
    serve.benchmark = _wrap_benchmark(serve.benchmark, measured)


def _wrap_calculate(original: Callable[..., Any], measured: list[Any]) -> Callable[..., Any]:
    """``calculate_metrics``: all that the bench knows, of which it saves a part."""

    @functools.wraps(original)
    def calculate_metrics(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        measured[:] = found[:1]
        return found

    return calculate_metrics


def _wrap_benchmark(original: Callable[..., Any], measured: list[Any]) -> Callable[..., Any]:
    """``benchmark(task_type, endpoint_type, ...)``: runs all requests; returns what is saved."""

    @functools.wraps(original)
    async def benchmark(task_type: Any, endpoint_type: Any, *args: Any, **kwargs: Any) -> Any:
        saved = await original(task_type, endpoint_type, *args, **kwargs)
        with internal_errors.suppressed("the bench's vocabulary"):
            for metrics in measured:  # none of a model that generates nothing
                known = {f.name: getattr(metrics, f.name) for f in dataclasses.fields(metrics)}
                figures = Result({**known, "backend": endpoint_type}).figures()
                saved[NAMED] = {f.name: f.value for f in figures if f.value is not None}
                print(f"{_TITLE:=^50}\n{text.renamed(figures)}\n{'=' * 50}")
        return saved

    return benchmark


#: Not among the seams of an engine: the bench has none, and feeds no family.
SEAM = Seam(
    name="bench",
    module="vllm_omni.entrypoints.cli.benchmark.serve",
    attribute="OmniBenchmarkServingSubcommand.cmd",
    form="static function",
    wrap=wrap_command,
    feeds=("the bench's result file",),
    leading=("args",),
    roles=("bench",),
)
