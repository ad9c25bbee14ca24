"""The Prometheus families, fed by the hooks like any other hook plugin."""

from __future__ import annotations

from vllm_omni_metrics_plugin.exporters.prometheus.exporter import PrometheusExporter
from vllm_omni_metrics_plugin.exporters.prometheus.guard import Guard

__all__ = ["Guard", "PrometheusExporter"]
