"""A script: the families of vLLM's page, with their labels, as the record of them has them.

It runs by itself, for its registry to hold what vLLM registers and no more. The optional families
are there as well: those of LoRA, of speculation and of the connectors that the public dashboards
are about. ``python -m tests.engine.vllm_families`` records them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import vllm
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.stats import NixlPromMetrics
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import OffloadPromMetrics
from vllm.entrypoints.serve.instrumentator.metrics import attach_router
from vllm.v1.metrics.loggers import PrometheusStatLogger

from testbed.pages.dashboards import PAGE
from testbed.paths import MODELS
from tests.engine.against_upstream import engine_config


class Connectors:
    @staticmethod
    def build_prom_metrics(*args: Any) -> KVConnectorPromMetrics:
        NixlPromMetrics(*args)
        return OffloadPromMetrics(*args)


def families() -> dict[str, list[str]]:
    """By name, the kind and then the labels of what the stat logger registers."""
    config = engine_config(str(MODELS / "llm"))
    config.lora_config = SimpleNamespace(max_loras=1)
    config.kv_transfer_config.kv_connector_extra_config = {"store_threshold": 2}
    KVConnectorFactory.get_connector_class = lambda *_: Connectors
    PrometheusStatLogger(config, [0]).log_engine_initialized()
    return {
        str(collector._name): [str(collector._type), *collector._labelnames]
        for collector in sorted(REGISTRY._collector_to_names, key=lambda c: getattr(c, "_name", ""))
        if isinstance(collector, MetricWrapperBase) and collector._name.startswith("vllm:")
    }


def server() -> dict[str, list[str]]:
    """By sample, the labels of what else the page has after a request."""
    app = FastAPI()
    attach_router(app)
    TestClient(app).get("/v1/models")
    return {
        sample.name: sorted(sample.labels)
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith(("http_", "process_")) and not sample.name.endswith("_created")
    }


def main(path: str = str(PAGE)) -> None:
    record = {"vllm": vllm.__version__, "families": families(), "server": server()}
    text = json.dumps(record, indent=1) + "\n"
    Path(path).write_text(re.sub(r"\[[^]]*\]", lambda labels: " ".join(labels[0].split()), text))


if __name__ == "__main__":
    main(*sys.argv[1:])
