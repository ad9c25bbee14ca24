"""The doctor on the engine that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest
from vllm_omni.engine.stage_pool import StagePool
from vllm_omni.entrypoints.async_omni import AsyncOmni

from vllm_omni_metrics_plugin.doctor.patches import availability, check
from vllm_omni_metrics_plugin.doctor.report import PatchState
from vllm_omni_metrics_plugin.patches.dry_run import try_seams
from vllm_omni_metrics_plugin.patches.table import SEAMS


def test_doctor_finds_nothing_wrong_with_a_server_that_is_switched_on() -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PROMETHEUS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "vllm_omni_metrics_plugin.cli", "doctor", "--json"],
        env={**inherited, "VLLM_OMNI_METRICS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    # Whatever the engine prints while it is imported, there is nothing else on standard output.
    report = json.loads(done.stdout)
    degraded = [f for f in report["findings"] if f["severity"] != "note"]
    assert (done.returncode, report["status"]) == (0, "good"), (degraded, done.stderr[-2000:])
    assert {patch["name"]: patch["status"] for patch in report["patches"]} == {
        seam.name: "applied" for seam in SEAMS
    }
    assert [patch for patch in report["patches"] if patch["others"]] == []
    assert report["engine"]["vllm-omni"]
    assert report["tested"] == "end to end"
    assert {family["available"] for family in report["families"]} == {"yes"}


def written_in(module: str, function: Callable[..., Any]) -> Any:
    """The function, as if it had been written in another module."""
    assert isinstance(function, FunctionType)
    home = vars(ModuleType(module))
    return FunctionType(function.__code__, home, None, function.__defaults__, function.__closure__)


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places that another package has wrapped; in one, it does not tell what."""
    generate, submit = AsyncOmni.generate, StagePool.submit_initial

    async def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        async for output in generate(self, *args, **kwargs):
            yield output

    def hidden(*args: Any, **kwargs: Any) -> Any:
        return submit(*args, **kwargs)

    telling = written_in("their_tracing", traced)
    telling.__wrapped__ = generate
    monkeypatch.setattr(AsyncOmni, "generate", telling)
    monkeypatch.setattr(StagePool, "submit_initial", written_in("their_limits.wrap", hidden))


@pytest.mark.usefixtures("patched")
def test_package_that_wraps_the_same_place_is_named() -> None:
    generate, submit = AsyncOmni.generate, StagePool.submit_initial
    tried = {result.seam.name: result for result in try_seams(SEAMS)}
    assert AsyncOmni.generate is generate
    assert StagePool.submit_initial is submit

    assert tried["generate"].others == ("their_tracing",)
    assert tried["generate"].status == "applied"
    assert tried["stage_submit"].others == ("their_limits.wrap",)
    assert tried["stage_submit"].status == "skipped"
    others = {name for name, result in tried.items() if result.others}
    assert others == {"generate", "stage_submit"}

    findings = {finding.severity: finding for finding in check(states(tried.values()), {}, SEAMS)}
    assert set(findings) == {"note", "degraded"}
    assert "their_limits.wrap has wrapped" in findings["degraded"].message
    assert "their_tracing" in findings["note"].message


def states(tried: Any) -> list[PatchState]:
    return [PatchState(t.seam.name, t.seam.target, t.status, t.reason, t.others) for t in tried]


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
def test_method_that_a_release_has_renamed_is_blamed(
    seam: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_name, method = seam.attribute.split(".")
    if method == "__init__":
        pytest.skip("every class has one")
    for owner in getattr(sys.modules[seam.module], class_name).__mro__:
        if method in vars(owner):
            monkeypatch.delattr(owner, method)
    [result] = try_seams([seam])
    assert (result.status, result.reason) == ("skipped", f"no method {seam.attribute}")
    families = availability(states([result]), {}, [seam])
    lost = {family.name.removeprefix("vllm:omni_") for family in families if family.reason}
    assert lost == set(seam.families)
