"""The words of the vocabulary are those of the installed engine's bench client."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
from vllm_omni.benchmarks.patch import patch

from vllm_omni_metrics_plugin.compare.figures import FIGURES
from vllm_omni_metrics_plugin.compare.figures.figure import DUPLEX, Figure

pytestmark = pytest.mark.skipif(
    int(version("vllm-omni").split(".")[1]) < 30, reason="older benches know a part of them"
)


@pytest.mark.parametrize(
    "backend", sorted({*DUPLEX, *(backend for figure in FIGURES for backend in figure.backends)})
)
def test_backend_is_one_of_the_benchs(backend: str) -> None:
    assert backend in patch.ASYNC_REQUEST_FUNCS


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f"{f.name}-{f.aggregate}-{f.bench}")
def test_key_is_one_that_the_bench_has(figure: Figure) -> None:
    measured = set(inspect.signature(patch.MultiModalsBenchmarkMetrics).parameters)
    if figure.aggregate == "quantile":
        assert {f"median_{figure.bench}", f"percentiles_{figure.bench}"} <= measured
    else:
        assert {figure.bench, figure.bench_times, figure.bench_over} - {None} <= measured
