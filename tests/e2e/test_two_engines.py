"""A script of somebody's own that makes two engines in one process, without any server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml

from testbed.pipelines import PIPELINES, deployment
from testbed.server import Server, binary
from tests.e2e.conftest import ON

SCRIPT = Path(__file__).with_name("two_engines.py")


def test_both_engines_start_and_each_shows_its_own_families(tmp_path: Path) -> None:
    pipeline = PIPELINES["omni"]
    deploy = tmp_path / "deploy.yaml"
    deploy.write_text(yaml.safe_dump(deployment(pipeline, replicas=1, async_chunk=True)))

    done = subprocess.run(
        [binary("python"), str(SCRIPT), str(pipeline.model), str(deploy)],
        env=Server("omni", env=ON).environment,
        capture_output=True,
        text=True,
        timeout=900,
    )

    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    *alive, stopped = json.loads(lines[0].removeprefix("REPORT "))
    for number, report in enumerate(alive, 1):
        shown = {(name, labels.get("stage"), value) for name, labels, value in report["samples"]}
        assert shown == {
            *(("vllm:omni_stage_info", stage, 1.0) for stage in "012"),
            # vLLM's own begin anew with each engine, ours go on.
            ("vllm:request_success_total", "0", 1.0),
            ("vllm:omni_requests_success_total", None, float(number)),
        }, f"engine {number}"
        assert report["asleep"] == {"0": "awake", "1": "weights_offloaded", "2": "awake"}
        assert report["awake"] == dict.fromkeys("012", "awake")
    assert [name for name, _, _ in stopped["samples"]] == ["vllm:omni_requests_success_total"]
