"""A batch script without a server: the example, in a process of its own, on the real engine."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import yaml

from testbed.pipelines import PIPELINES, deployment
from testbed.server import Server, binary
from tests.e2e.conftest import ON

SCRIPT = Path(__file__).with_name("offline_batch.py")
PROMPTS = ("hello there", "how are you", "one two three")


def test_batch_script_hears_every_request_of_its_own_engine(tmp_path: Path) -> None:
    pipeline = PIPELINES["omni"]
    deploy = tmp_path / "deploy.yaml"
    deploy.write_text(yaml.safe_dump(deployment(pipeline, replicas=1, async_chunk=True)))
    traced = {**ON, "VLLM_OMNI_METRICS_TRACE": "1"}
    done = subprocess.run(
        [
            *(binary("python"), str(SCRIPT), str(pipeline.model), *PROMPTS),
            *("--deploy-config", str(deploy)),
        ],
        env=Server("omni", env=traced).environment,
        capture_output=True,
        text=True,
        timeout=900,
    )

    output = f"{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    reports = [line.removeprefix("REPORT ") for line in lines if line.startswith("REPORT ")]
    assert reports, output[-6000:]
    report = json.loads(reports[0])
    got, events = report["got"], report["events"]

    ids = {output["id"] for output in got}
    assert len(ids) == len(PROMPTS)
    batch = [event for event in events if event["id"] in ids]
    counted = Counter((event["hook"], event["id"]) for event in batch)
    for request in ids:
        assert counted["RequestArrived", request] == 1
        assert counted["StageSubmitted", request] == 3
        assert counted["AudioFinished", request] == 1
        assert counted["RequestFinished", request] == 1
        [frames] = [e["frames"] for e in batch if e["id"] == request and e["frames"] is not None]
        assert frames == sum(output["samples"] for output in got if output["id"] == request) > 0
    assert {e["outcome"] for e in batch if e["outcome"]} <= {"stop", "length"}

    abandoned = [event for event in events if event["outcome"] and event["id"] not in ids]
    assert len(abandoned) == len(PROMPTS)
    assert "abort" in {event["outcome"] for event in abandoned}

    own = [line for line in lines if line.startswith("request ")]
    assert len(own) == 2 * len(PROMPTS), "the example says each end"
    assert sum("omni_request_finished -> heard in " in line for line in output.splitlines()) == 6
