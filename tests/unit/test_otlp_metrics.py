"""The metrics that arrive at an OTLP receiver, decoded from the bytes that were sent to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.otlp import Receiver, plain
from vllm_omni_metrics_plugin.exporters.otel import Metrics, metrics
from vllm_omni_metrics_plugin.hooks import ReplicaJoined
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    listening = Receiver()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")  # only when it is told to
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setattr(metrics, "_LAST_SECONDS", 60.0)  # a busy machine is no slow collector
    yield listening
    listening.close()


@pytest.fixture
def plugin(receiver: Receiver, omni_hooks: HookHarness) -> Iterator[Metrics]:
    registered = omni_hooks.register(Metrics())
    registered.open()
    yield registered
    registered.close()


VOCODER = {
    "vllm_omni.stage.id": 1,
    "vllm_omni.stage.name": "vocoder",
    "vllm_omni.stage.replica_id": 1,
}


def test_speech_arrives_with_the_conventions_names_and_attributes(
    omni_hooks: HookHarness, plugin: Metrics, receiver: Receiver
) -> None:
    joined = {"model_name": "qwen3-tts", "stage": 1, "replica": 1, "stage_name": "vocoder"}
    omni_hooks.fire(make_event(ReplicaJoined, **joined))
    omni_hooks.fire(*speech_request(model_name="qwen3-tts", packets=3, replica=1))
    plugin.flush()

    about = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen3-tts",
        "gen_ai.response.model": "qwen3-tts",
    }
    spoken = {**about, "gen_ai.output.type": "speech", **VOCODER}
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
        (a["vllm_omni.stage.id"], a["gen_ai.token.type"]): (count, total)
        for a, count, total in receiver.points("vllm_omni.server.stage.token.usage")
    }
    assert usage == {(0, "input"): (1, 12), (0, "output"): (1, 25), (1, "output"): (1, 25)}


def test_duration_has_the_bounds_that_the_conventions_ask_for(
    omni_hooks: HookHarness, plugin: Metrics, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    plugin.flush()
    [point] = receiver.metrics()["gen_ai.server.request.duration"].histogram.data_points
    expected = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96]
    assert list(point.explicit_bounds) == pytest.approx([*expected, 81.92])


@pytest.mark.parametrize(
    ("outcome", "error"),
    [("error", "stage_error"), ("abort", "client_disconnect"), ("rejected", "invalid_request")],
)
def test_request_that_failed_has_an_error_type_and_no_audio(
    omni_hooks: HookHarness, plugin: Metrics, receiver: Receiver, outcome: str, error: str
) -> None:
    omni_hooks.fire(*speech_request(outcome=outcome, packets=0))
    plugin.flush()
    [(attributes, count, _)] = receiver.points("gen_ai.server.request.duration")
    assert (attributes["error.type"], count) == (error, 1)
    assert "vllm_omni.server.audio.duration" not in receiver.metrics()


def test_resource_carries_the_services_name(
    omni_hooks: HookHarness, plugin: Metrics, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    plugin.flush()
    [resource] = receiver.metric_requests[-1].resource_metrics
    assert plain(resource.resource.attributes)["service.name"] == "vllm-omni"


def test_end_of_the_process_sends_what_is_left(
    omni_hooks: HookHarness, plugin: Metrics, receiver: Receiver
) -> None:
    omni_hooks.fire(*speech_request())
    assert receiver.metric_requests == []
    plugin.close()
    assert receiver.points("gen_ai.server.request.duration")[0][1] == 1


def test_nothing_is_recorded_before_the_engine_is_there(
    omni_hooks: HookHarness, receiver: Receiver
) -> None:
    plugin = omni_hooks.register(Metrics())
    omni_hooks.fire(*speech_request())
    plugin.open()
    omni_hooks.fire(*speech_request())
    plugin.close()
    assert receiver.points("gen_ai.server.request.duration")[0][1] == 1


def test_names_that_an_operator_gives_the_service_hold(
    omni_hooks: HookHarness, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=narrator,zone=b")
    plugin = omni_hooks.register(Metrics())
    plugin.open()
    omni_hooks.fire(*speech_request())
    plugin.close()
    [resource] = receiver.metric_requests[-1].resource_metrics
    about = plain(resource.resource.attributes)
    assert (about["service.name"], about["zone"]) == ("narrator", "b")


def test_what_the_sdk_refuses_is_said_once_and_harms_nobody(
    omni_hooks: HookHarness, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = omni_hooks.register(Metrics({"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}))
    plugin.open()
    omni_hooks.fire(*speech_request())
    plugin.close()
    [message] = caplog.messages
    assert "refused what the OTEL_* variables say" in message
    assert "no metrics are sent over OTLP" in message
