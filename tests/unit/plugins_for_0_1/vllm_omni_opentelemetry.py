"""A hook plugin: metrics over OTLP, with the names of the GenAI semantic conventions."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Configured,
    MediaPacket,
    RequestFinished,
    StageFinished,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_opentelemetry")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: The bounds that the conventions ask for.
DURATION_SECONDS = [0.01 * 2**n for n in range(14)]
FIRST_SECONDS = [
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
]
TOKENS = [4**n for n in range(14)]
#: Dense around 1, where a listener begins to hear gaps.
RTF = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0]

#: What ``error.type`` says; other outcomes are no errors.
ERRORS = {"error": "stage_error", "abort": "cancelled", "rejected": "invalid_request"}


class OpenTelemetry:
    """Records events as measurements; a thread of the SDK sends them from time to time."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self.provider: MeterProvider | None = None

    # All of them are slow: recording waits while the SDK's thread collects.

    @hookimpl(slow=True)
    def omni_configured(self, event: Configured) -> None:
        if event.role != "server" or self.provider is not None:
            return
        if not any(self._environ.get(name) for name in ENDPOINTS):
            logger.warning("%s is not set; nothing is sent to OpenTelemetry", ENDPOINTS[1])
            return
        name = self._environ.get("OTEL_SERVICE_NAME") or "vllm-omni"
        self.provider = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter())],
            Resource.create({SERVICE_NAME: name}),
        )
        release = event.versions.get("vllm-omni-metrics-plugin", "")
        meter = self.provider.get_meter("vllm_omni_opentelemetry", release)

        def histogram(name: str, unit: str, text: str, bounds: list[float]) -> Any:
            return meter.create_histogram(
                name, unit, text, explicit_bucket_boundaries_advisory=bounds
            )

        self._duration = histogram(
            "gen_ai.server.request.duration",
            "s",
            "Generative AI server request duration.",
            DURATION_SECONDS,
        )
        self._queue = histogram(
            "vllm_omni.server.request.queue_time",
            "s",
            "Arrival to the first stage submit.",
            FIRST_SECONDS,
        )
        self._first = histogram(
            "vllm_omni.server.time_to_first_packet",
            "s",
            "Arrival to the first packet of media of a streamed response.",
            FIRST_SECONDS,
        )
        self._audio = histogram(
            "vllm_omni.server.audio.duration", "s", "Length of generated audio.", DURATION_SECONDS
        )
        self._rtf = histogram(
            "vllm_omni.server.audio.real_time_factor",
            "1",
            "Generation time over the length of the audio; above 1 it has gaps.",
            RTF,
        )
        self._tokens = histogram(
            "vllm_omni.server.stage.token.usage",
            "{token}",
            "Tokens that one stage took in or generated for a request.",
            list(map(float, TOKENS)),
        )

    @hookimpl(slow=True)
    def omni_request_finished(self, event: RequestFinished) -> None:
        if self.provider is None:
            return
        attributes = {**_about(event.model_name), "vllm_omni.outcome": event.outcome}
        if event.outcome in ERRORS:
            attributes["error.type"] = ERRORS[event.outcome]
        self._duration.record(event.end_to_end_seconds, attributes)
        if event.queue_seconds is not None:
            self._queue.record(event.queue_seconds, _about(event.model_name))

    @hookimpl(slow=True)
    def omni_media_packet(self, event: MediaPacket) -> None:
        if self.provider is None or event.index or not event.streamed:
            return
        self._first.record(event.since_arrival_seconds, _stage(event))

    @hookimpl(slow=True)
    def omni_audio_finished(self, event: AudioFinished) -> None:
        if self.provider is None or event.duration_seconds is None:
            return
        self._audio.record(event.duration_seconds, _stage(event))
        if event.generation_seconds is not None:
            self._rtf.record(event.generation_seconds / event.duration_seconds, _stage(event))

    @hookimpl(slow=True)
    def omni_stage_finished(self, event: StageFinished) -> None:
        if self.provider is None:
            return
        where = {"vllm_omni.stage": event.stage, "vllm_omni.replica": event.replica}
        for kind, tokens in (("input", event.tokens_in), ("output", event.tokens_out)):
            if tokens:
                self._tokens.record(tokens, {**where, "gen_ai.token.type": kind})


def _about(model_name: str) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model_name,
        "gen_ai.response.model": model_name,
    }


def _stage(event: MediaPacket | AudioFinished) -> dict[str, Any]:
    attributes = {**_about(event.model_name), "vllm_omni.stage": event.stage}
    if event.replica is not None:
        attributes["vllm_omni.replica"] = event.replica
    if isinstance(event, AudioFinished) or event.modality == "audio":
        attributes["gen_ai.output.type"] = "speech"
    return attributes


plugin = OpenTelemetry()
