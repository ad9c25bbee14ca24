"""Plugins as they were written for 0.1, to the letter: they load, work, and say what to change.

In ``plugins_for_0_1`` are the packages that were its examples, and the examples of its pages.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.public_api import RELEASED, read
from vllm_omni_metrics_plugin.hooks import Configured, HookRegistry, renamed
from vllm_omni_metrics_plugin.hooks.loading import load_installed
from vllm_omni_metrics_plugin.settings import parse
from vllm_omni_metrics_plugin.testing import EVENTS, HookHarness, make_event, speech_request

OLD = Path(__file__).parent / "plugins_for_0_1"
EXAMPLES = sorted(path.stem for path in (OLD / "examples").glob("*.py"))
PACKAGES = ("vllm_omni_access_log", "vllm_omni_opentelemetry", "vllm_omni_slo_judge")
#: By hook, what the page said that its example prints.
PRINTED: dict[str, str] = json.loads((OLD / "printed.json").read_text())
#: What the examples use under a name of then, and the name of now.
RENAMED = {"omni_transfer_sent": ("TransferSent.seconds", "TransferSent.duration_seconds")}


@pytest.fixture(autouse=True)
def _nothing_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_OMNI_ACCESS_LOG", "VLLM_OMNI_SLO", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(renamed, "_logged", set())


def install(folder: Path, name: str, module: str) -> None:
    """Leave in ``folder`` what pip leaves of a package with this entry point."""
    info = folder / f"{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    entry = f"{name} = {module}:plugin"
    (info / "entry_points.txt").write_text(f"[vllm_omni_metrics_plugin.hooks]\n{entry}\n")


def load(registry: HookRegistry, *names: str) -> list[str]:
    """As a server does, these alone."""
    variables = {"VLLM_OMNI_METRICS": "1", "VLLM_OMNI_METRICS_HOOKS": ",".join(names)}
    return load_installed(registry, parse(variables))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The three packages, under the entry points that they had."""
    hidden = {name: sys.modules.pop(name) for name in PACKAGES if name in sys.modules}
    for name in PACKAGES:
        install(tmp_path, f"{name}_of_old", name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(OLD))
    yield
    for name in PACKAGES:
        sys.modules.pop(name, None)
    sys.modules.update(hidden)


def module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


def test_packages_of_then_are_loaded_without_a_complaint(
    installed: None, caplog: pytest.LogCaptureFixture
) -> None:
    registry = HookRegistry()
    names = [f"{name}_of_old" for name in PACKAGES]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert sorted(load(registry, *names)) == sorted(names)
    assert caplog.records == []


def test_package_that_imports_an_old_name_is_loaded_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
from vllm_omni_metrics_plugin.hooks import Account, HookManager, hookimpl, plugins

class Plugin:
    @hookimpl
    def omni_media_packet(self, event): ...

plugin = Plugin()
HookManager(), plugins.accounts()
"""
    (tmp_path / "written_for_0_1.py").write_text(source)
    install(tmp_path, "mine", "written_for_0_1")
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a server does
        assert load(HookRegistry(), "mine") == ["mine"]
    hooks = "vllm_omni_metrics_plugin.hooks"
    assert [record.getMessage() for record in caplog.records] == [
        f"omni-metrics: hook plugin 'mine': {old} was renamed to {new}; the old name goes with 0.3"
        for old, new in (
            (f"{hooks}.Account", f"{hooks}.HookStats"),
            (f"{hooks}.HookManager", f"{hooks}.HookRegistry"),
            ("HookRegistry.accounts()", "HookRegistry.stats()"),
        )
    ]
    sys.modules.pop("written_for_0_1")


def test_access_log_of_then_writes_its_lines(
    installed: None, omni_hooks: HookHarness, tmp_path: Path
) -> None:
    path = tmp_path / "access.jsonl"
    plugin = module("vllm_omni_access_log").AccessLog({"VLLM_OMNI_ACCESS_LOG": str(path)})
    omni_hooks.register(plugin)
    omni_hooks.fire(*speech_request("mine", packets=3), *speech_request("other", outcome="abort"))
    plugin._file.close()
    mine, other = map(json.loads, path.read_text().splitlines())
    assert (mine["request_id"], mine["outcome"], mine["packets"]) == ("mine", "stop", 3)
    assert [stage["tokens_out"] for stage in mine["stages"]] == [25, 25]
    assert mine["audio"][0]["rtf"] == pytest.approx(0.79 / 3.0)
    assert (other["outcome"], other["audio"]) == ("abort", [])


def test_judge_of_then_judges(installed: None, omni_hooks: HookHarness, tmp_path: Path) -> None:
    file = tmp_path / "slo.toml"
    file.write_text('[[objective]]\nname = "speech"\ntarget = 0.95\nfirst_packet_seconds = 0.5\n')
    registry = CollectorRegistry()
    judge = module("vllm_omni_slo_judge").SloJudge({"VLLM_OMNI_SLO": str(file)}, registry)
    omni_hooks.register(judge)
    omni_hooks.fire(make_event(Configured))
    for n, seconds in enumerate((0.2, 0.3, 0.7)):
        omni_hooks.fire(*speech_request(f"r{n}", first_packet_seconds=seconds))
    counts = {
        verdict: registry.get_sample_value(f"omni_slo_{verdict}_total", {"objective": "speech"})
        for verdict in ("good", "bad")
    }
    assert counts == {"good": 2, "bad": 1}


def test_exporter_of_then_exports(
    installed: None, omni_hooks: HookHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    otlp, reader = module("vllm_omni_opentelemetry"), InMemoryMetricReader()
    monkeypatch.setattr(otlp, "OTLPMetricExporter", lambda: None)
    monkeypatch.setattr(otlp, "PeriodicExportingMetricReader", lambda _: reader)
    omni_hooks.register(otlp.OpenTelemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}))
    omni_hooks.fire(make_event(Configured), *speech_request(packets=3))
    counts = {
        metric.name: sum(point.count for point in metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert counts["gen_ai.server.request.duration"] == 1
    assert counts["vllm_omni.server.audio.real_time_factor"] == 1
    assert counts["vllm_omni.server.stage.token.usage"] == 3, "0 tokens are none"


@pytest.mark.parametrize("hook", EXAMPLES)
def test_example_of_then_does_what_its_page_said(
    hook: str, omni_hooks: HookHarness, caplog: pytest.LogCaptureFixture
) -> None:
    example = ModuleType(hook)
    vars(example).update(runpy.run_path(str(OLD / "examples" / f"{hook}.py")))
    name, printed = f"{hook} of old", io.StringIO()
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always", DeprecationWarning)
        omni_hooks.register(example, name)
        omni_hooks.fire(make_event(EVENTS[hook]))
    assert printed.getvalue() == PRINTED[hook]
    old, new = RENAMED.get(hook, (None, None))
    expected = [f"hook plugin '{name}': {old} was renamed to {new}; the old name goes with 0.3"]
    deprecated = [one for one in warned if one.category is DeprecationWarning]
    assert [str(one.message) for one in deprecated] == (expected if old else [])
    logged = [record.getMessage() for record in caplog.records]
    assert logged == ([f"omni-metrics: {expected[0]}"] if old else [])


def test_every_hook_of_then_has_its_example() -> None:
    assert set(EXAMPLES) == set(PRINTED) == set(read(RELEASED)["hooks"])
