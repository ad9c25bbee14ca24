"""The same statistics in vLLM's stat logger and in ours: the same numbers, sample for sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.paths import MODELS, RELEASES, ROOT

SCRIPT = Path(__file__).with_name("against_upstream.py")


@pytest.fixture(scope="module", params=["0.30.0", "0.28.0"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the comparison says of one vLLM release; 0.30.0 is the one that is installed."""
    path = [] if request.param == "0.30.0" else [str(RELEASES / f"vllm-omni-{request.param}")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(MODELS / "llm")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]),
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    result: dict[str, Any] = json.loads(lines[0].removeprefix("REPORT "))
    assert result["version"] == request.param
    return result


def test_every_sample_is_upstreams_under_its_replica(report: dict[str, Any]) -> None:
    assert report["different"] == []
    assert report["samples"] > 1000
    assert report["nonzero"] > 0.8 * report["samples"], "numbers that could differ"


def test_every_family_of_upstreams_is_there_and_none_keeps_its_engine_label(
    report: dict[str, Any],
) -> None:
    assert len(report["families"]) > 40
    assert any(report["families"].values()), "upstream's have the label"
    assert report["missing"] == []
    assert report["with_engine_label"] == []


def test_stream_covers_the_helper_collectors(report: dict[str, Any]) -> None:
    for family in (
        "vllm:spec_decode_num_accepted_tokens_per_pos",
        "vllm:test_kv_seconds",
        "vllm:estimated_flops_per_gpu",
        "vllm:kv_block_lifetime_seconds",
    ):
        assert report["families"][family], family
