"""A script: two engines one after the other in one process, each asked once and
put to sleep in part; prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from prometheus_client import REGISTRY

RUNNING = "vllm:num_requests_running"
SHOWN = (
    RUNNING,
    "vllm:request_success_total",
    "vllm:omni_requests_success_total",
    "vllm:omni_stage_info",
)


def samples() -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name in SHOWN and sample.value
    ]


def settled() -> list[tuple[str, dict[str, str], float]]:
    """The samples once the engine has said that it is idle, or when it does not in 30 seconds."""
    deadline = time.monotonic() + 30
    while any(name == RUNNING for name, _, _ in samples()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return samples()


def sleep_states() -> dict[str, str]:
    """Of each stage that has one replica."""
    return {
        sample.labels["stage"]: sample.labels["sleep_state"]
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "vllm:engine_sleep_state" and sample.value == 1
    }


async def use(engine: Any) -> dict[str, Any]:
    prompt = {"prompt_token_ids": [1, 2, 3]}
    async for _ in engine.generate(prompt, request_id="one", output_modalities=["text"]):
        pass
    report: dict[str, Any] = {"samples": await asyncio.to_thread(settled)}
    await engine.sleep(stage_ids=[1], level=1)
    report["asleep"] = sleep_states()
    await engine.wake_up(stage_ids=[1])
    report["awake"] = sleep_states()
    return report


def main(model: str, deploy: str) -> None:
    from vllm_omni.entrypoints.async_omni import AsyncOmni

    reports = []
    for _ in range(2):
        engine = AsyncOmni(model=model, deploy_config=deploy)
        reports.append(asyncio.run(use(engine)))
        engine.shutdown()
    reports.append({"samples": samples()})
    print("REPORT", json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
