"""The hook plugin that records events as OTLP metrics, by the GenAI semantic conventions."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.exporters.otel.attributes import OUTPUT_TYPES, about, at_stage, ended
from vllm_omni_metrics_plugin.exporters.otel.environment import PROTOCOLS, protocol
from vllm_omni_metrics_plugin.exporters.otel.service import resource
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    ReplicaJoined,
    RequestFinished,
    StageFinished,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_metrics")

#: The bounds that the conventions ask for.
DURATION_SECONDS = [0.01 * 2**n for n in range(14)]
FIRST_SECONDS = [
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
]
TOKENS = [float(4**n) for n in range(14)]
#: Dense around 1, where a client begins to hear gaps.
RTF = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0]

#: At the end of the process: for so long the last measurements may be on their way.
_LAST_SECONDS = 3.0


class _Instruments:
    """The SDK's histograms."""

    def __init__(self, meter: Any) -> None:
        def histogram(name: str, unit: str, text: str, bounds: list[float]) -> Any:
            return meter.create_histogram(
                name, unit, text, explicit_bucket_boundaries_advisory=bounds
            )

        self.duration = histogram(
            "gen_ai.server.request.duration",
            "s",
            "Generative AI server request duration.",
            DURATION_SECONDS,
        )
        self.queue = histogram(
            "vllm_omni.server.request.queue_time",
            "s",
            "Arrival to the first start in any stage.",
            FIRST_SECONDS,
        )
        self.first = histogram(
            "vllm_omni.server.time_to_first_packet",
            "s",
            "Arrival to the first packet of media of a streamed response.",
            FIRST_SECONDS,
        )
        self.audio = histogram(
            "vllm_omni.server.audio.duration", "s", "Length of generated audio.", DURATION_SECONDS
        )
        self.rtf = histogram(
            "vllm_omni.server.audio.real_time_factor",
            "1",
            "Generation time over the length of the audio; above 1 it has gaps.",
            RTF,
        )
        self.tokens = histogram(
            "vllm_omni.server.stage.token.usage",
            "{token}",
            "Tokens that one stage took in or generated for a request.",
            TOKENS,
        )


class Metrics:
    """Records from :meth:`open` on, until :meth:`close`; a thread of the SDK sends."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._provider: Any = None
        self._instruments: _Instruments | None = None
        #: By model and stage.
        self._names: dict[tuple[str | None, int], str] = {}

    def open(self) -> None:
        """Record from now on. Not before the engine is there: its processes would inherit threads.

        What the SDK does not take is said in one warning, and nothing is sent.
        """
        if self._provider is not None:
            return
        try:
            self._provider = _provider(self._environ)
            self._instruments = _Instruments(
                self._provider.get_meter("vllm_omni_metrics_plugin", __version__)
            )
        except Exception as error:
            logger.warning(
                "omni-metrics: the OpenTelemetry SDK refused what the OTEL_* variables say (%s: "
                "%s); no metrics are sent over OTLP",
                type(error).__name__,
                error,
            )
            return
        atexit.register(self.close)

    def flush(self) -> None:
        """Send what there is; blocks as long as the collector does."""
        if self._provider is not None:
            self._provider.force_flush()

    def close(self) -> None:
        """Send what is quickly sent."""
        atexit.unregister(self.close)
        provider, self._provider, self._instruments = self._provider, None, None
        if provider is not None:
            last = threading.Thread(target=provider.shutdown, daemon=True)
            last.start()
            last.join(_LAST_SECONDS)

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        self._names[event.model_name, event.stage] = event.stage_name

    # The others are slow: recording waits while the SDK's thread collects.

    @hookimpl(slow=True)
    def omni_request_finished(self, event: RequestFinished) -> None:
        instruments = self._instruments
        if instruments is None:
            return
        model = about(event.model_name)
        if event.end_to_end_seconds is not None:
            attributes = {**model, **ended(event.outcome, event.failure)}
            instruments.duration.record(event.end_to_end_seconds, attributes)
        if event.queue_seconds is not None:
            instruments.queue.record(event.queue_seconds, model)

    @hookimpl(slow=True)
    def omni_media_packet(self, event: MediaPacket) -> None:
        instruments = self._instruments
        if instruments is None or event.index or not event.streamed:
            return
        if event.since_arrival_seconds is not None:
            instruments.first.record(event.since_arrival_seconds, self._speech(event))

    @hookimpl(slow=True)
    def omni_audio_finished(self, event: AudioFinished) -> None:
        instruments = self._instruments
        if instruments is None or event.duration_seconds is None:
            return
        instruments.audio.record(event.duration_seconds, self._speech(event))
        if event.rtf is not None:
            instruments.rtf.record(event.rtf, self._speech(event))

    @hookimpl(slow=True)
    def omni_stage_finished(self, event: StageFinished) -> None:
        instruments = self._instruments
        if instruments is None:
            return
        where = self._where(event.model_name, event.stage, event.replica)
        for kind, tokens in (("input", event.tokens_in), ("output", event.tokens_out)):
            if tokens:
                instruments.tokens.record(tokens, {**where, "gen_ai.token.type": kind})

    def _speech(self, event: MediaPacket | AudioFinished) -> dict[str, Any]:
        return {
            **about(event.model_name),
            **self._where(event.model_name, event.stage, event.replica),
            "gen_ai.output.type": OUTPUT_TYPES["audio"],
        }

    def _where(self, model_name: str | None, stage: int, replica: int | None) -> dict[str, Any]:
        return at_stage(stage, replica, self._names.get((model_name, stage)))


def _provider(environ: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    kind = PROTOCOLS[protocol(environ, "METRICS")]
    module = import_module(f"opentelemetry.exporter.otlp.proto.{kind}.metric_exporter")
    make_exporter: Callable[[], Any] = module.OTLPMetricExporter
    # The end of the process is ours to bound.
    reader = PeriodicExportingMetricReader(make_exporter())
    return MeterProvider([reader], resource(), shutdown_on_exit=False)
