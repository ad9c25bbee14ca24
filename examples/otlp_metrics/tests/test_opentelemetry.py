"""What arrives at an OTLP receiver, decoded from the bytes that were sent to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from vllm_omni_opentelemetry import OpenTelemetry

from vllm_omni_metrics_plugin.hooks import Configured
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request


class Receiver:
    """An OTLP receiver for metrics on loopback: HTTP, protobuf."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/metrics"
                assert self.headers["content-type"] == "application/x-protobuf"
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def metrics(self) -> dict[str, Any]:
        """The last state of each metric, by name."""
        return {
            metric.name: metric
            for request in self.requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[dict[str, Any], int, float]]:
        """Attributes, count and sum of each of a histogram's points."""
        return [
            (_plain(point.attributes), point.count, round(point.sum, 6))
            for point in self.metrics()[name].histogram.data_points
        ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in attributes}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    listening = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")  # only when it is told to
    yield listening
    listening.close()


@pytest.fixture
def plugin(receiver: Receiver, omni_hooks: HookHarness) -> Iterator[OpenTelemetry]:
    registered = omni_hooks.register(OpenTelemetry())
    omni_hooks.fire(make_event(Configured))
    yield registered
    assert registered.provider is not None
    registered.provider.shutdown()


def flush(plugin: OpenTelemetry) -> None:
    assert plugin.provider is not None
    plugin.provider.force_flush()


def test_speech_arrives_with_the_conventions_names_and_attributes(
    omni_hooks: HookHarness, plugin: OpenTelemetry, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request(model_name="qwen3-tts", packets=3, replica=1))
    flush(plugin)

    about = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen3-tts",
        "gen_ai.response.model": "qwen3-tts",
    }
    spoken = {**about, "gen_ai.output.type": "speech", "vllm_omni.stage": 1, "vllm_omni.replica": 1}
    assert receiver.points("gen_ai.server.request.duration") == [
        ({**about, "vllm_omni.outcome": "stop"}, 1, 0.8)
    ]
    assert receiver.metrics()["gen_ai.server.request.duration"].unit == "s"
    assert receiver.points("vllm_omni.server.request.queue_time") == [(about, 1, 0.01)]
    assert receiver.points("vllm_omni.server.time_to_first_packet") == [(spoken, 1, 0.2)]
    assert receiver.points("vllm_omni.server.audio.duration") == [(spoken, 1, 3.0)]
    assert receiver.points("vllm_omni.server.audio.real_time_factor") == [
        (spoken, 1, round(0.79 / 3.0, 6))
    ]
    usage = {
        (a["vllm_omni.stage"], a["gen_ai.token.type"]): (count, total)
        for a, count, total in receiver.points("vllm_omni.server.stage.token.usage")
    }
    assert usage == {(0, "input"): (1, 12), (0, "output"): (1, 25), (1, "output"): (1, 25)}


def test_duration_has_the_bounds_that_the_conventions_ask_for(
    omni_hooks: HookHarness, plugin: OpenTelemetry, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    flush(plugin)
    [point] = receiver.metrics()["gen_ai.server.request.duration"].histogram.data_points
    expected = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96]
    assert list(point.explicit_bounds) == pytest.approx([*expected, 81.92])


@pytest.mark.parametrize(
    ("outcome", "error"),
    [("error", "stage_error"), ("abort", "cancelled"), ("rejected", "invalid_request")],
)
def test_request_that_failed_has_an_error_type_and_no_audio(
    omni_hooks: HookHarness, plugin: OpenTelemetry, receiver: Receiver, outcome: str, error: str
) -> None:
    omni_hooks.fire(*speech_request(outcome=outcome, packets=0))
    flush(plugin)
    [(attributes, count, _)] = receiver.points("gen_ai.server.request.duration")
    assert (attributes["error.type"], count) == (error, 1)
    assert "vllm_omni.server.audio.duration" not in receiver.metrics()


def test_resource_carries_the_services_name(
    omni_hooks: HookHarness, plugin: OpenTelemetry, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    flush(plugin)
    [resource] = receiver.requests[-1].resource_metrics
    assert _plain(resource.resource.attributes)["service.name"] == "vllm-omni"


def test_end_of_the_process_sends_what_is_left(
    omni_hooks: HookHarness, plugin: OpenTelemetry, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    assert receiver.requests == []
    assert plugin.provider is not None
    plugin.provider.shutdown()
    assert receiver.points("gen_ai.server.request.duration")[0][1] == 1


def test_without_an_endpoint_nothing_is_sent_and_one_line_says_so(
    omni_hooks: HookHarness, caplog: pytest.LogCaptureFixture
) -> None:
    registered = omni_hooks.register(OpenTelemetry({}))
    omni_hooks.fire(make_event(Configured), *speech_request())
    assert registered.provider is None
    [message] = caplog.messages
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is not set" in message


def test_engines_other_processes_send_nothing(omni_hooks: HookHarness, receiver: Receiver) -> None:
    registered = omni_hooks.register(OpenTelemetry())
    omni_hooks.fire(make_event(Configured, role="worker"))
    assert registered.provider is None
