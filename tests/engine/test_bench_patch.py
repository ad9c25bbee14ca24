"""The bench client with the plugin in it saves its figures under the server's names, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.benchmarks import serve
from vllm.benchmarks.serve import TaskType
from vllm_omni.benchmarks.patch import patch
from vllm_omni.entrypoints.cli.benchmark.serve import OmniBenchmarkServingSubcommand

from vllm_omni_metrics_plugin.compare.result import NAMED
from vllm_omni_metrics_plugin.patches import bench
from vllm_omni_metrics_plugin.patches.seams.seam import AppliedSeam, apply


def spoken(seconds: float, ttfp: float) -> Any:
    """What the bench knows of an answer of two seconds' audio."""
    output = patch.MixRequestFuncOutput()
    output.success = True
    output.start_time = 0.0
    output.latency = seconds
    output.itl = []
    output.audio_ttfp, output.audio_duration, output.audio_frames = ttfp, 2.0, 48000
    output.audio_rtf = seconds / 2.0
    return output


async def run(task_type: TaskType, endpoint_type: str, **_: Any) -> dict[str, Any]:
    """In the place of sending requests; what was measured goes the engine's own way."""
    if task_type == TaskType.GENERATION:
        patch.calculate_metrics(
            input_requests=[],
            outputs=[spoken(1.0, 0.1), spoken(1.5, 0.3)],
            dur_s=3.0,
            tokenizer=None,
            selected_percentiles=[99.0],
            goodput_config_dict={},
            task_type=task_type,
            selected_percentile_metrics=[],
            max_concurrency=1,
            request_rate=1.0,
            benchmark_duration=3.0,
        )
    return {"completed": 2}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[AppliedSeam]:
    """The seam, applied to the installed engine; its bench sends nothing."""
    monkeypatch.setattr(serve, "benchmark", run)
    monkeypatch.setattr(patch, "calculate_metrics", patch.calculate_metrics)
    applied = apply(bench.SEAM, None)
    assert applied is not None
    yield applied
    assert applied.revert()


def saved(monkeypatch: pytest.MonkeyPatch, task_type: TaskType) -> dict[str, Any]:
    """What the real command would write after the run."""
    found: dict[str, Any] = {}

    def main(_: object) -> None:
        found.update(asyncio.run(serve.benchmark(task_type, "openai-audio-speech")))

    monkeypatch.setattr("vllm_omni.benchmarks.serve.main", main)
    OmniBenchmarkServingSubcommand.cmd(SimpleNamespace())
    return found


@pytest.mark.usefixtures("command")
def test_figures_have_the_names_of_the_families(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = saved(monkeypatch, TaskType.GENERATION)
    assert found.pop("completed") == 2
    assert set(found) == {NAMED}
    named = found[NAMED]
    assert named['requests_success_total{finished_reason=~"stop|length"}'] == 2
    assert named["audio_frames_total"] == 96000
    assert named["audio_ttfp_seconds_mean"] == pytest.approx(0.2)
    assert named["audio_ttfp_seconds_p99"] == pytest.approx(0.298)
    assert named["audio_rtf_end_to_end_mean"] == pytest.approx(0.625)
    assert named["audio_rtf_end_to_end"] == pytest.approx(0.625)
    assert "Under the names of the server's families" in capsys.readouterr().out


@pytest.mark.usefixtures("command")
def test_run_that_generates_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved(monkeypatch, TaskType.POOLING) == {"completed": 2}


@pytest.mark.usefixtures("command")
def test_fault_of_ours_does_not_cost_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "Result", None)
    assert saved(monkeypatch, TaskType.GENERATION) == {"completed": 2}


@pytest.mark.usefixtures("command")
def test_bench_without_the_place_runs_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(patch, "calculate_metrics")
    monkeypatch.setattr(
        "vllm_omni.benchmarks.serve.main",
        lambda _: asyncio.run(serve.benchmark(TaskType.POOLING, "openai")),
    )
    OmniBenchmarkServingSubcommand.cmd(SimpleNamespace())
    assert serve.benchmark is run
