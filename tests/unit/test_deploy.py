"""The files for routers and autoscalers: what they name exists, and they fit each other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from testbed.clients.router import Page, Reading
from tests.deployed import DEPLOY, DRAIN, adapter, content, engine, keda
from vllm_omni_metrics_plugin import catalog

FILES = sorted(path for path in DEPLOY.iterdir() if path.suffix in (".yaml", ".py"))
README = (DEPLOY / "README.md").read_text()


@pytest.fixture(scope="module")
def drain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drain", DRAIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_family_that_a_file_names_is_in_the_catalogue(path: Path) -> None:
    named = set(re.findall(r"vllm:omni_\w+", path.read_text()))
    assert named <= {family.name for family in catalog.FAMILIES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_has_one_row_of_the_readme(path: Path) -> None:
    assert README.count(f"\n| [{path.name}]({path.name}) |") == 1


def test_readme_shows_every_query_as_the_files_have_it() -> None:
    rules = content("prometheus-adapter.yaml")
    asked = [query.text for query in keda().values()]
    asked += [rule["metricsQuery"] for kind in ("rules", "externalRules") for rule in rules[kind]]
    asked += [engine()[f"{which}RequestsSpec"] for which in ("queued", "running")]
    assert len(asked) == 7
    for query in asked:
        assert f"`{query}`" in README


def test_gauges_of_the_endpoint_picker_have_one_series_for_each_model() -> None:
    by_name = {family.name: family for family in catalog.FAMILIES}
    for which in ("queued", "running"):
        family = by_name[engine()[f"{which}RequestsSpec"]]
        assert family.labels == ("model_name",)
        assert family.kind == "gauge"


def test_endpoint_picker_refers_to_plugins_that_it_declares() -> None:
    picker = content("endpoint-picker.yaml")
    declared = {plugin["type"] for plugin in picker["plugins"]}
    (source,), (profile,) = picker["dataLayer"]["sources"], picker["schedulingProfiles"]
    used = [source["pluginRef"], *(e["pluginRef"] for e in source["extractors"])]
    used += [plugin["pluginRef"] for plugin in profile["plugins"]]
    assert sorted(used) == sorted(declared)


def test_pods_carry_the_label_of_the_engine_that_the_picker_reads() -> None:
    labels = content("pod.yaml")["spec"]["template"]["metadata"]["labels"]
    assert labels == {"llm-d.ai/engine-type": engine()["name"]}


def test_autoscaler_asks_for_metrics_that_the_adapter_has() -> None:
    asked = [
        metric["pods" if metric["type"] == "Pods" else "external"]["metric"]["name"]
        for metric in content("hpa.yaml")["spec"]["metrics"]
    ]
    assert asked == ["omni_open_requests", "omni_oldest_waiting_seconds"]
    assert set(asked) <= set(adapter("any"))


def test_pod_runs_the_drain_that_is_here_and_lives_longer_than_it(drain: ModuleType) -> None:
    pod = content("pod.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, script, *options = container["lifecycle"]["preStop"]["exec"]["command"]
    given = dict(option.removeprefix("--").split("=") for option in options)
    assert (program, script.rpartition("/")[2]) == ("python3", DRAIN.name)
    assert set(given) == {"url", "seconds", "quiet"}
    # The engine needs a while to end after the drain.
    assert pod["terminationGracePeriodSeconds"] >= float(given["seconds"]) + 30
    assert float(given["quiet"]) < float(given["seconds"])


@pytest.mark.parametrize(
    ("page", "open_requests"),
    [
        ("vllm:omni_num_requests_running 2\nvllm:omni_num_requests_waiting 3\n", 5),
        (
            'vllm:omni_num_requests_running{model_name="a model {1}"} 2.0 1700000000000\n'
            'vllm:omni_num_requests_running{model_name="b"} 1.0\n'
            'vllm:omni_num_requests_waiting{model_name="a model {1}"} 0.0\n',
            3,
        ),
        ("vllm:omni_num_requests_running 0\n", None),
        ("", None),
        (
            "# HELP vllm:omni_num_requests_running of all\n"
            "vllm:omni_num_requests_running_ 9\nvllm:omni_num_requests_waiting 1\n",
            None,
        ),
    ],
)
def test_drain_counts_the_open_requests_of_a_page(
    drain: ModuleType, page: str, open_requests: float | None
) -> None:
    assert drain.counted(page) == open_requests


# The test client that stands for routers


PAGE = """\
# TYPE load gauge
load{stage="0",replica="0"} 3.0
load{stage="1",replica="0"} 5.0
load{stage="1",replica="1"} 7.0
# TYPE alone gauge
alone{model_name="m"} 4.0
# TYPE seen_total counter
seen_total 9.0
# TYPE unsaid untyped
unsaid 8.0
# TYPE dated gauge
dated{a="1"} 1.0 1000
dated{a="2"} 2.0 3000
dated{a="3"} 3.0 2000
"""


@pytest.mark.parametrize(
    ("spec", "reading"),
    [
        ("load", Reading(3, 7, 15)),
        ("load{stage=1}", Reading(5, 7, 12)),
        ('load{stage="1",replica="1"}', Reading(7, 7, 7)),
        ("alone", Reading(4, 4, 4)),
        ("seen_total", Reading(9, 9, 9)),
        ("unsaid", Reading(0, 0, 0)),
        ("dated", Reading(2, 3, 6)),
    ],
)
def test_router_takes_the_first_the_last_or_the_sum(spec: str, reading: Reading) -> None:
    assert Page(PAGE).read(spec) == reading


@pytest.mark.parametrize("spec", ["nothing", "load{stage=7}", ""])
def test_router_without_a_sample_says_so(spec: str) -> None:
    with pytest.raises(LookupError):
        Page(PAGE).read(spec)
