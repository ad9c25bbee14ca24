"""OpenTelemetry: a trace of each request and metrics, over OTLP; two hook plugins like any other.

Nothing of the SDK is imported before the engine is there, and nothing at all if it is not wanted.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.exporters.otel.environment import refusal
from vllm_omni_metrics_plugin.exporters.otel.metrics import Metrics
from vllm_omni_metrics_plugin.exporters.otel.traces import Traces

__all__ = ["Metrics", "Traces", "refusal"]
