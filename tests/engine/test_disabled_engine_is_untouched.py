"""Switched off, or not among the plugins that the operator allows: the engine as it was released.

One interpreter imports the serving modules, as a server has when it loads its plugins, and forks a
child for each way of loading them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vllm_omni_metrics_plugin
from vllm_omni_metrics_plugin.patches.table import SEAMS

SOURCES = Path(vllm_omni_metrics_plugin.__file__).parents[1]

SCRIPT = """
import importlib, json, os, sys

places, ways = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for module in ("vllm.entrypoints.openai.api_server", "vllm_omni.entrypoints.openai.api_server"):
    importlib.import_module(module)
for module, _ in places:
    importlib.import_module(module)


def observe():
    import vllm.plugins
    from prometheus_client import REGISTRY

    vllm.plugins.plugins_loaded = False
    vllm.plugins.load_general_plugins()
    patched = []
    for module, attribute in places:
        cls, method = attribute.split(".")
        for owner in getattr(sys.modules[module], cls).__mro__:
            function = vars(owner).get(method)
            function = getattr(function, "__func__", function)
            if hasattr(function, "__omni_metrics_seam__"):
                patched.append(attribute)
    return {
        "patched": patched,
        "started": "vllm_omni_metrics_plugin.startup" in sys.modules,
        "ours": sorted(n for n in sys.modules if n.startswith("vllm_omni_metrics_plugin")),
        "families": sorted(
            family.name for family in REGISTRY.collect() if "vllm:omni_" in family.name
        ),
        "finders": [type(finder).__module__ for finder in sys.meta_path],
    }


for way, variables in ways.items():
    sys.stdout.flush()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.environ.update(variables)
        try:
            report = json.dumps(observe())
        except BaseException as error:
            report = json.dumps({"error": repr(error)})
        os.write(writing, report.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        print("REPORT", json.dumps([way, json.loads(pipe.read())]), flush=True)
    os.wait()
"""

WAYS = {
    "unset": {},
    "0": {"VLLM_OMNI_METRICS": "0"},
    "not allowed": {"VLLM_OMNI_METRICS": "1", "VLLM_PLUGINS": "vllm_omni_register_models"},
    "on": {"VLLM_OMNI_METRICS": "1"},
    "on and allowed": {
        "VLLM_OMNI_METRICS": "1",
        "VLLM_PLUGINS": "omni_metrics,vllm_omni_register_models",
    },
}


@pytest.fixture(scope="module")
def observed() -> dict[str, dict[str, Any]]:
    """What each way of loading the plugins left in its process."""
    places = [(seam.module, seam.attribute) for seam in SEAMS]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("VLLM_OMNI_METRICS")}
    inherited.pop("VLLM_PLUGINS", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(places), json.dumps(WAYS)],
        env={**inherited, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert len(lines) == len(WAYS), f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    reports = dict(json.loads(line.removeprefix("REPORT ")) for line in lines)
    assert not any("error" in report for report in reports.values()), reports
    return reports


@pytest.mark.parametrize("way", ["unset", "0", "not allowed"])
def test_engine_is_untouched(observed: dict[str, dict[str, Any]], way: str) -> None:
    report = observed[way]
    assert report["patched"] == []
    assert report["families"] == []
    assert not [name for name in report["finders"] if "metrics_plugin" in name]


@pytest.mark.parametrize("way", ["unset", "0"])
def test_switched_off_nothing_but_the_entry_point_is_imported(
    observed: dict[str, dict[str, Any]], way: str
) -> None:
    assert observed[way]["ours"] == ["vllm_omni_metrics_plugin"]
    assert not observed[way]["started"]


def test_plugin_that_is_not_allowed_is_not_even_imported(
    observed: dict[str, dict[str, Any]],
) -> None:
    assert observed["not allowed"]["ours"] == []


@pytest.mark.parametrize("way", ["on", "on and allowed"])
def test_switched_on_every_seam_is_in_place(observed: dict[str, dict[str, Any]], way: str) -> None:
    """Which shows that the tests above look at the right places."""
    report = observed[way]
    assert report["started"]
    assert sorted(report["patched"]) == sorted(
        seam.attribute for seam in SEAMS if "server" in seam.roles
    )
    assert report["families"] == [], "none before an engine's first replica has joined"
