"""What this process sends over OTLP, as far as the operator wants it and it can be sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from vllm_omni_metrics_plugin.hooks import plugins
from vllm_omni_metrics_plugin.hooks.loading import OTLP_METRICS, TRACES
from vllm_omni_metrics_plugin.patches.process import clock
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.settings import PREFIX, Settings

Warn = Callable[[str], None]


def send_traces(
    settings: Settings, state: EngineState, warn: Warn
) -> Callable[[], Mapping[str, int]] | None:
    """Trace requests once the engine is there; returns what counts the spans that were lost."""
    if not settings.traces or TRACES in settings.hooks_blocked:
        return None
    from vllm_omni_metrics_plugin.exporters.otel import Traces, refusal

    why = refusal(os.environ, "TRACES")
    if why is not None:
        warn(f"{PREFIX}_TRACES is on, but {why}; no request is traced")
        return None
    traces = Traces(clock(), settings.players[0])
    plugins.register(traces, TRACES, timed=False)
    state.requests.begin_trace = traces.begin
    state.after_engine.append(traces.open)
    return traces.dropped


def send_metrics(settings: Settings, state: EngineState, warn: Warn) -> None:
    """Send metrics once the engine is there."""
    if not settings.otlp_metrics or OTLP_METRICS in settings.hooks_blocked:
        return
    from vllm_omni_metrics_plugin.exporters.otel import Metrics, refusal

    why = refusal(os.environ, "METRICS")
    if why is not None:
        warn(f"{PREFIX}_OTLP_METRICS is on, but {why}; no metrics are sent over OTLP")
        return
    metrics = Metrics()
    plugins.register(metrics, OTLP_METRICS, timed=False)
    state.after_engine.append(metrics.open)
