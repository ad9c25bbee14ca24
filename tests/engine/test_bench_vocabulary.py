"""The words of the vocabulary are those of the installed engine's bench client."""

from __future__ import annotations

import inspect
import random
from importlib.metadata import version

import pytest
from vllm_omni.benchmarks.audio_continuity import compute_continuity_stats
from vllm_omni.benchmarks.patch import patch

from vllm_omni_metrics_plugin.compare.figures import FIGURES
from vllm_omni_metrics_plugin.compare.figures.figure import DUPLEX, Figure
from vllm_omni_metrics_plugin.media.playback import Playback

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


def test_underrun_is_the_benchs_and_its_late_chunks_are_more_than_the_stalls() -> None:
    chance = random.Random(7)
    rate, more, streams = 1000, 0, 4000
    for _ in range(streams):
        at, arrivals, lengths = 0.0, [], []
        for _ in range(chance.randint(1, 12)):
            arrivals.append(at)
            lengths.append(chance.randint(1, 30) / 10)
            at += chance.randint(0, 45) / 10
        chunks = [round(seconds * rate) * 2 for seconds in lengths]
        theirs = compute_continuity_stats(arrivals, chunks, rate)
        playback = Playback((0.0,))
        for arrival, seconds in zip(arrivals, lengths, strict=True):
            playback.packet(arrival, seconds)
        playback.end(at)
        assert playback.underrun_seconds == pytest.approx(theirs.max_underrun_s, abs=1e-9)
        assert playback.players[0].stalls <= theirs.underrun_event_count
        more += playback.players[0].stalls < theirs.underrun_event_count
    print(f"the bench counts more late chunks than there are silences in {more} of {streams}")
    assert more > streams / 4
