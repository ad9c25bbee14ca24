"""The queries in ``deploy/`` as Prometheus computes them, over series of which the answer is known.

Two pods of the model, one that has ended, and those of others, which must not count.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import prometheus
from tests.deployed import MODEL, NAMESPACE, Query, adapter, keda

MINUTES = 10
#: By query, the labels and the value of its one element, computed by hand from the series below.
ANSWERS: dict[str, tuple[str, float]] = {
    "open-requests": ("{}", (3 + 4) + (1 + 2)),
    "oldest-waiting": ("{}", 7.5),
    "omni_open_requests": ('{pod="a"}', 3 + 4),
    # The second stage's two replicas: all of the time and four tenths of it.
    "omni_busiest_stage_ratio": ('{pod="a"}', 0.7),
    "omni_oldest_waiting_seconds": ("{}", 7.5),
}
QUERIES = {**keda(), **adapter("a")}


@pytest.fixture(scope="module")
def promtool() -> Path:
    try:
        return prometheus.fetched() / "promtool"
    except prometheus.UnavailableError as reason:
        pytest.skip(str(reason))


def series() -> Iterator[dict[str, str]]:
    def one(name: str, values: str, **labels: str) -> dict[str, str]:
        named = {"namespace": NAMESPACE, "model_name": MODEL, **labels}
        shown = ",".join(f'{label}="{value}"' for label, value in named.items())
        return {"series": f"vllm:omni_{name}{{{shown}}}", "values": values}

    minutes = f"x{MINUTES}"
    for pod, running, waiting, oldest in (("a", 3, 4, 2.5), ("b", 1, 2, 7.5)):
        yield one("num_requests_running", f"{running}+0{minutes}", pod=pod)
        yield one("num_requests_waiting", f"{waiting}+0{minutes}", pod=pod)
        yield one("oldest_waiting_seconds", f"{oldest}+0{minutes}", pod=pod)
    for stranger in ({"namespace": "other"}, {"model_name": "other", "pod": "other"}):
        for name in ("num_requests_running", "num_requests_waiting", "oldest_waiting_seconds"):
            yield one(name, f"100+0{minutes}", **{"pod": "a", **stranger})
    for name in ("num_requests_running", "num_requests_waiting", "oldest_waiting_seconds"):
        yield one(name, "50 stale", pod="ended")
    for stage, replica, seconds in (("0", "0", 30), ("1", "0", 60), ("1", "1", 24)):
        labels = {"stage": stage, "replica": replica}
        yield one("stage_busy_seconds_total", f"0+{seconds}{minutes}", pod="a", **labels)
        yield one("stage_busy_seconds_total", f"0+60{minutes}", pod="b", **labels)


@pytest.mark.parametrize("query", QUERIES.values(), ids=lambda query: query.name)
def test_query_is_one_element_of_the_pods_that_are_meant(
    promtool: Path, tmp_path: Path, query: Query
) -> None:
    labels, value = ANSWERS[query.name]
    asked = {
        "expr": query.text,
        "eval_time": f"{MINUTES}m",
        "exp_samples": [{"labels": labels, "value": value}],
    }
    group = {"interval": "1m", "input_series": list(series()), "promql_expr_test": [asked]}
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"tests": [group]}))
    done = subprocess.run(
        [str(promtool), "test", "rules", str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_an_answer_to_every_query() -> None:
    assert set(QUERIES) == set(ANSWERS)
