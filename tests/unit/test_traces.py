"""The trace of each sampled request, as it arrives at an OTLP receiver from the real SDK."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.otlp import Receiver, Trace
from tests.unit.feed import Feed
from vllm_omni_metrics_plugin.exporters.otel import Traces, sending
from vllm_omni_metrics_plugin.exporters.otel import traces as module
from vllm_omni_metrics_plugin.hooks import (
    HookRegistry,
    ImageFinished,
    MediaPacket,
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferReceived,
    TransferSent,
    VideoFinished,
)
from vllm_omni_metrics_plugin.requests.client import Client
from vllm_omni_metrics_plugin.requests.tracing import Accepted
from vllm_omni_metrics_plugin.testing import make_event

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
HOST = "host"
#: Longer than any test: what a test looks at is sent when it closes.
NEVER = 600.0


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    listening = Receiver()
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    # A machine that stands still is no collector that does.
    monkeypatch.setattr(module, "_JOIN_SECONDS", 60.0)
    monkeypatch.setattr(sending, "_LAST_SECONDS", 60.0)
    yield listening
    listening.close()


class Told:
    """Traces, and the story of a request told to them event by event."""

    def __init__(
        self,
        registry: HookRegistry,
        grace_seconds: float = NEVER,
        buffer_seconds: float = 0.0,
        make_exporter: Callable[[], Any] | None = None,
    ) -> None:
        self.traces = Traces(
            HOST, buffer_seconds, grace_seconds=grace_seconds, make_exporter=make_exporter
        )
        self.traces.open()
        registry.register(self.traces, "traces")
        self._feed = Feed(registry.hooks)
        for stage, name in enumerate(("talker", "vocoder")):
            feeds = (1,) if stage == 0 else ()
            self.tell(ReplicaJoined, stage=stage, replica=0, stage_name=name, feeds=feeds)

    def tell(self, kind: Any, **fields: Any) -> None:
        usual: dict[str, Any] = {"model_name": "tiny", "request_id": "r-1", "clock": HOST}
        known = {name: usual[name] for name in usual if name in kind.__struct_fields__}
        self._feed.event(make_event(kind, **known | fields))

    def begin(
        self, traceparent: str | None = None, request_id: str = "r-1", **said: Any
    ) -> str | None:
        client = Client("/v1/audio/speech", "http", traceparent, said.get("tracestate"))
        return self.traces.begin(Accepted(request_id, "speech-r", "tiny", 100.0, client))

    def finish(self, trace_id: str | None, outcome: str = "stop", **changes: Any) -> None:
        usual = {"end_to_end_seconds": 2.0, "failure": None, "status": 200}
        fields = usual | {"outcome": outcome, "trace_id": trace_id} | changes
        self.tell(RequestFinished, **fields)

    def speech(self, traceparent: str | None = None) -> str | None:
        """Two stages, three chunks, three packets of half a second; the second one is late."""
        trace_id = self.begin(traceparent)
        self.tell(RequestArrived, arrived_at=100.0, modalities=("audio",), trace_id=trace_id)
        for stage in (0, 1):
            at = 100.25 + stage / 4
            self.tell(StageSubmitted, stage=stage, replica=0, submitted_at=at, first=stage == 0)
        self.tell(StageStarted, stage=0, replica=0, submitted_at=100.25, started_at=100.375)
        for chunk in range(3):
            edge = {"from_replica": 0, "to_replica": 0, "duration_seconds": 0.125}
            sent, at = 100.75 + chunk / 4, 100.875 + chunk / 4
            self.tell(TransferSent, **edge, sent_at=sent, size_bytes=100)
            self.tell(TransferReceived, **edge, received_at=at, size_bytes=100)
        started = {"submitted_at": 100.5, "started_at": 101.0, "input_at": 100.875}
        self.tell(StageStarted, stage=1, replica=0, **started)
        for index, left in enumerate((101.0, 101.75, 101.8125)):
            about = {"index": index, "left_at": left, "since_arrival_seconds": left - 100.0}
            size = {"samples": 12_000, "sample_rate": 24_000, "stage": 1, "replica": 0}
            self.tell(MediaPacket, **about, **size, trace_id=trace_id)
        for stage, ended in ((0, 101.5), (1, 101.875)):
            self.tell(StageEnded, stage=stage, replica=0, ended_at=ended, started_at=1.0)
            tokens = {"tokens_in": 0 if stage else 12, "tokens_out": 25, "finish_reason": "stop"}
            self.tell(StageFinished, stage=stage, replica=0, finished_at=ended, **tokens)
        return trace_id

    def stream(self, trace_id: str | None) -> None:
        heard = {"first_audible_seconds": 1.125, "stage": 1, "replica": 0}
        self.tell(StreamFinished, **heard, trace_id=trace_id)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, clock: Any) -> Any:
    """The end of a request, which is when it is told of it."""
    monkeypatch.setattr(module, "time", clock)
    clock.now = 102.0
    return clock


@pytest.fixture
def told(registry: HookRegistry, receiver: Receiver, at: Any) -> Iterator[Told]:
    made = Told(registry)
    yield made
    made.traces.close()


def only(receiver: Receiver, told: Told) -> Trace:
    """The one trace, once all is sent."""
    told.traces.close()
    trace = receiver.trace(lambda root: True)
    trace.assert_is_a_tree()
    return trace


def seconds(trace: Trace, span: Any) -> tuple[float, float]:
    """Since the arrival."""
    beginning = trace.root.began_at
    return (span.began_at - beginning) / 1e9, (span.ended_at - beginning) / 1e9


def moments(trace: Trace, span: Any) -> list[tuple[str, float]]:
    return [(name, round((at - trace.root.began_at) / 1e9, 6)) for name, at, _ in span.events]


def about(seconds: tuple[float, float]) -> Any:
    return pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("stream_first", [True, False])
def test_spans_of_speech_are_its_events(told: Told, receiver: Receiver, stream_first: bool) -> None:
    trace_id = told.speech(CLIENT)
    if stream_first:
        told.stream(trace_id)
    told.finish(trace_id)
    if not stream_first:
        told.stream(trace_id)
    trace = only(receiver, told)
    root = trace.root
    assert (root.trace_id, root.parent_id) == (CLIENT.split("-")[1], CLIENT.split("-")[2])
    assert trace_id == root.trace_id
    assert (root.kind, root.status) == (2, 0)  # a server's, and nothing said of it
    assert root.attributes == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.output.type": "speech",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.response.finish_reasons": ["stop"],
        "vllm_omni.outcome": "stop",
        "vllm_omni.request.id": "r-1",
        "vllm_omni.request.external_id": "speech-r",
        "http.route": "/v1/audio/speech",
        "http.response.status_code": 200,
    }
    assert seconds(trace, root) == about((0.0, 2.0))
    assert moments(trace, root) == [("first_packet", 1.0), ("first_audible", 1.125), ("stall", 1.5)]
    assert root.events[2][2]["vllm_omni.stall.duration_seconds"] == 0.25
    talker, vocoder = trace.stage(0), trace.stage(1)
    assert [s.name for s in (talker, vocoder)] == ["omni.stage talker", "omni.stage vocoder"]
    assert seconds(trace, talker) == about((0.25, 1.5))
    assert seconds(trace, vocoder) == about((0.5, 1.875))
    assert vocoder.attributes["vllm_omni.stage.replica_id"] == 0
    assert vocoder.attributes["vllm_omni.stage.name"] == "vocoder"
    assert talker.attributes["gen_ai.usage.output_tokens"] == 25
    shown = {
        (parent.name, name): seconds(trace, span)
        for parent in (talker, vocoder)
        for name in ("queue", "execute")
        for span in trace.below(parent, name)
    }
    assert shown == {
        ("omni.stage talker", "queue"): about((0.25, 0.375)),
        ("omni.stage talker", "execute"): about((0.375, 1.5)),
        ("omni.stage vocoder", "queue"): about((0.875, 1.0)),
        ("omni.stage vocoder", "execute"): about((1.0, 1.875)),
    }
    [transfer] = trace.named("omni.transfer")
    assert (transfer.parent_id, transfer.links) == (vocoder.span_id, [talker.span_id])
    assert seconds(trace, transfer) == about((0.625, 1.375))
    assert moments(trace, transfer) == [("chunk", 0.875), ("chunk", 1.125), ("chunk", 1.375)]
    assert transfer.attributes["vllm_omni.transfer.payloads"] == 3
    assert transfer.attributes["vllm_omni.transfer.size_bytes"] == 300
    assert len(trace.others) == 2 + 4 + 1


def test_request_without_a_trace_of_its_clients_begins_one(told: Told, receiver: Receiver) -> None:
    trace_id = told.speech()
    told.finish(trace_id)
    root = only(receiver, told).root
    assert (root.trace_id, root.parent_id) == (trace_id, "")


@pytest.mark.parametrize("traceparent", ["", "00-zz-1-01", "nonsense", "00-" + "0" * 32])
def test_trace_of_a_client_that_cannot_be_read_is_none(
    told: Told, receiver: Receiver, traceparent: str
) -> None:
    trace_id = told.begin(traceparent)
    assert trace_id is not None
    told.finish(trace_id)
    assert only(receiver, told).root.parent_id == ""


@pytest.mark.parametrize(
    ("traceparent", "sampler"),
    [
        (NOT_SAMPLED, {}),
        (None, {"OTEL_TRACES_SAMPLER": "always_off"}),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}),
    ],
)
def test_request_that_is_not_sampled_leaves_nothing(
    registry: HookRegistry,
    receiver: Receiver,
    at: Any,
    monkeypatch: pytest.MonkeyPatch,
    traceparent: str | None,
    sampler: dict[str, str],
) -> None:
    for name, value in sampler.items():
        monkeypatch.setenv(name, value)
    told = Told(registry)
    assert told.speech(traceparent) is None
    assert len(told.traces) == 0
    told.finish(None)
    told.traces.close()
    assert receiver.spans() == []
    assert told.traces.dropped() == {}


def test_clients_trace_is_sampled_whatever_the_ratio_for_others_is(
    registry: HookRegistry, receiver: Receiver, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    told = Told(registry)
    assert told.begin(CLIENT) == CLIENT.split("-")[1]
    told.traces.close()


@pytest.mark.parametrize(
    ("outcome", "failure", "status"),
    [
        ("abort", "client_disconnect", 0),
        ("rejected", "invalid_request", 0),
        ("error", "endpoint_error", 2),
        ("error", "dead_replica", 2),
    ],
)
def test_request_that_fails_says_why_and_is_an_error_if_it_is_ours(
    told: Told, receiver: Receiver, outcome: str, failure: str, status: int
) -> None:
    trace_id = told.begin()
    told.tell(StageSubmitted, stage=0, replica=0, submitted_at=100.25)
    told.finish(trace_id, outcome, failure=failure, status=None)
    trace = only(receiver, told)
    root = trace.root
    assert "http.response.status_code" not in root.attributes, "nothing was sent"
    assert (root.status, root.message) == (status, failure if status else "")
    assert root.attributes["error.type"] == failure
    assert root.attributes["vllm_omni.outcome"] == outcome
    assert "gen_ai.response.finish_reasons" not in root.attributes
    assert ("abort" in [name for name, _, _ in root.events]) == (outcome == "abort")
    # It waited to the end, and nobody executed it.
    [stage] = trace.named("omni.stage")
    assert [span.name for span in trace.others if span.parent_id == stage.span_id] == ["queue"]
    assert seconds(trace, trace.named("queue")[0]) == about((0.25, 2.0))


def test_stage_whose_replica_dies_is_an_error_and_the_others_are_not(
    told: Told, receiver: Receiver
) -> None:
    trace_id = told.begin()
    for stage, replica in enumerate((0, 1, 0)):
        told.tell(StageSubmitted, stage=stage, replica=replica, submitted_at=100.25)
    told.tell(StageFinished, stage=0, replica=0, finished_at=101.0)
    told.tell(StageFinished, stage=2, replica=0, finished_at=101.0, finish_reason="error")
    told.tell(ReplicaLeft, stage=0, replica=0)
    told.tell(ReplicaLeft, stage=2, replica=0)
    told.tell(ReplicaLeft, stage=1, replica=0)
    told.tell(ReplicaLeft, stage=1, replica=1, model_name="another")
    told.tell(ReplicaLeft, stage=1, replica=1)
    told.finish(trace_id, "error", failure="dead_replica")
    trace = only(receiver, told)
    assert [(trace.stage(n).status, trace.stage(n).message) for n in range(3)] == [
        (0, ""),
        (2, "dead_replica"),
        (2, "dead_replica"),
    ]


def test_silence_in_which_a_client_leaves_is_a_stall(told: Told, receiver: Receiver) -> None:
    trace_id = told.begin()
    packet = {"samples": 12_000, "sample_rate": 24_000, "stage": 1, "left_at": 101.0}
    told.tell(MediaPacket, **packet, index=0, since_arrival_seconds=1.0, trace_id=trace_id)
    told.finish(trace_id, "abort", failure="client_disconnect")
    trace = only(receiver, told)
    expected = [("first_packet", 1.0), ("stall", 1.5), ("abort", 2.0)]
    assert moments(trace, trace.root) == expected


def test_stalls_are_those_of_the_player_that_decides(
    registry: HookRegistry, receiver: Receiver, at: Any
) -> None:
    told = Told(registry, buffer_seconds=0.75)  # so it starts with the second packet
    trace_id = told.speech()
    told.finish(trace_id)
    trace = only(receiver, told)
    assert moments(trace, trace.root) == [("first_packet", 1.0)]


def test_silence_at_the_natural_end_is_none(told: Told, receiver: Receiver) -> None:
    trace_id = told.begin()
    packet = {"samples": 12_000, "sample_rate": 24_000, "stage": 1, "left_at": 101.0}
    told.tell(MediaPacket, **packet, index=0, since_arrival_seconds=1.0, trace_id=trace_id)
    told.finish(trace_id)
    trace = only(receiver, told)
    assert moments(trace, trace.root) == [("first_packet", 1.0)]


@pytest.mark.parametrize(
    ("kind", "word"), [(ImageFinished, "image"), (VideoFinished, "video"), (None, "text")]
)
def test_output_type_is_what_was_made(told: Told, receiver: Receiver, kind: Any, word: str) -> None:
    trace_id = told.begin()
    told.tell(RequestArrived, modalities=("text",), trace_id=trace_id)
    if kind is not None:
        told.tell(kind, stage=0, replica=0)
    told.finish(trace_id)
    assert only(receiver, told).root.attributes["gen_ai.output.type"] == word


def test_extra_requests_of_guided_generation_are_parts_of_the_one_that_made_them(
    told: Told, receiver: Receiver
) -> None:
    trace_id = told.begin()
    told.tell(StageSubmitted, stage=0, replica=0, submitted_at=100.25)
    extra = {"request_id": "r-1__cfg", "parent_request_id": "r-1"}
    told.tell(StageSubmitted, stage=0, replica=0, submitted_at=100.5, **extra, model_name=None)
    told.tell(StageStarted, stage=0, replica=0, started_at=100.75, submitted_at=None, **extra)
    told.tell(StageFinished, request_id="r-1__cfg", stage=0, replica=0, finished_at=101.0)
    told.tell(StageSubmitted, stage=1, replica=0, submitted_at=101.0)
    told.tell(TransferSent, request_id="r-1__cfg", sent_at=101.25)
    told.finish(trace_id)
    trace = only(receiver, told)
    [own, other, later] = sorted(trace.named("omni.stage"), key=lambda span: span.began_at)
    assert "vllm_omni.request.parent_id" not in own.attributes
    assert other.attributes["vllm_omni.request.parent_id"] == "r-1"
    assert other.attributes["vllm_omni.request.id"] == "r-1__cfg"
    [execute] = trace.below(other, "execute")
    assert seconds(trace, execute) == about((0.75, 1.0))
    [transfer] = trace.named("omni.transfer")
    assert (transfer.parent_id, transfer.links) == (later.span_id, [own.span_id])
    assert (len(told.traces), told.traces._by_id) == (0, {})


def test_sound_of_an_utterance_of_several_requests_is_none_of_theirs(
    told: Told, receiver: Receiver
) -> None:
    trace_id = told.begin()
    packet = {"samples": 12_000, "sample_rate": 24_000, "stage": 1, "left_at": 101.0}
    told.tell(MediaPacket, **packet, index=0, since_arrival_seconds=1.0, trace_id=trace_id)
    told.tell(StreamFinished, first_audible_seconds=0.25, requests=2, trace_id=trace_id)
    told.finish(trace_id)
    trace = only(receiver, told)
    assert moments(trace, trace.root) == [("first_packet", 1.0)]


def test_times_of_another_hosts_clock_are_not_shown(told: Told, receiver: Receiver) -> None:
    trace_id = told.begin()
    told.tell(StageSubmitted, stage=1, replica=0, submitted_at=100.25)
    told.tell(TransferSent, clock="elsewhere", sent_at=3.0)
    told.tell(TransferReceived, clock="elsewhere", received_at=4.0)
    told.tell(StageStarted, stage=1, replica=0, started_at=None)
    told.finish(trace_id)
    assert [span.name for span in only(receiver, told).others] == ["omni.stage vocoder"]


def test_nothing_outlives_its_request_whatever_is_told_after_it(
    registry: HookRegistry, receiver: Receiver, at: Any
) -> None:
    told = Told(registry, grace_seconds=0.0)
    trace_id = told.speech()
    assert len(told.traces) == 1
    told.finish(trace_id)
    eventually(lambda: len(told.traces) == 0)
    told.stream(trace_id)
    told.tell(StageSubmitted, stage=1, replica=0, submitted_at=103.0)
    told.tell(StageSubmitted, request_id="r-1__cfg", stage=1, replica=0, parent_request_id="r-1")
    told.tell(StageEnded, stage=0, replica=0, ended_at=103.0)
    told.tell(TransferReceived, received_at=103.0)
    told.finish(trace_id)
    assert len(told.traces) == 0
    assert told.traces._by_id == {}
    trace = receiver.trace(lambda root: True)
    assert len(trace.others) == 7
    told.traces.close()
    assert len(receiver.spans()) == 8


def test_what_is_gathered_of_one_request_is_bounded(told: Told, receiver: Receiver) -> None:
    trace_id = told.begin()
    for number in range(100):
        told.tell(StageSubmitted, stage=number, replica=0, submitted_at=100.25)
        told.tell(TransferSent, from_stage=0, to_stage=1, sent_at=100.5)
        told.tell(TransferReceived, from_stage=0, to_stage=1, received_at=100.5, size_bytes=2)
        told.tell(TransferSent, from_stage=number, to_stage=number + 1, sent_at=100.5)
        told.tell(MediaPacket, index=0, left_at=100.5, trace_id=trace_id)
    told.finish(trace_id)
    trace = only(receiver, told)
    assert len(trace.named("omni.stage")) == 64
    assert len(trace.named("omni.transfer")) == 64
    assert len(trace.root.events) == 64
    [first] = [s for s in trace.named("omni.transfer") if len(s.events) > 1]
    assert len(first.events) == 64
    assert first.attributes["vllm_omni.transfer.payloads"] == 100
    assert first.attributes["vllm_omni.transfer.size_bytes"] == 200


def test_requests_that_are_traced_at_once_are_bounded(
    told: Told, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_STORIES", 2)
    begun = [told.begin(request_id=f"r-{number}") for number in range(4)]
    assert [trace_id is not None for trace_id in begun] == [True, True, False, False]
    assert len(told.traces) == 2
    assert told.traces.dropped() == {"too_many_requests": 2}


@pytest.fixture
def crowded(
    registry: HookRegistry, receiver: Receiver, at: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Told]:
    """Tells of so many requests, of 8 spans each, with a queue for 44 spans."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "44")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")

    def tell(requests: int) -> Told:
        told = Told(registry, grace_seconds=0.0)
        for _ in range(requests):
            told.finish(told.speech())
            eventually(lambda: len(told.traces) == 0)
        return told

    return tell


def test_collector_that_hangs_costs_spans_and_nothing_else(
    crowded: Callable[[int], Told], receiver: Receiver
) -> None:
    with receiver.being("hangs"):
        told = crowded(12)
        lost = told.traces.dropped()["queue_full"]
        # At most one batch is on its way, and the queue is full.
        assert 12 * 8 - 40 - 8 <= lost <= 12 * 8 - 40
        assert lost % 8 == 0  # no tree has holes
    eventually(lambda: len(receiver.spans()) + lost == 12 * 8)
    for more in range(1, 8):  # and there is room again
        told.finish(told.speech())
        eventually(lambda: len(receiver.spans()) + lost == (12 + more) * 8)  # noqa: B023
    told.traces.close()
    assert told.traces.dropped() == {"queue_full": lost}


def test_spans_that_the_collector_refuses_are_counted(
    crowded: Callable[[int], Told], receiver: Receiver
) -> None:
    with receiver.being("refuses"):
        told = crowded(2)
        eventually(lambda: told.traces.dropped().get("export_failed") == 16)
    told.finish(told.speech())
    eventually(lambda: len(receiver.spans()) == 8)
    told.traces.close()
    assert told.traces.dropped() == {"export_failed": 16}


def test_spans_for_a_collector_that_is_not_there_are_counted(
    crowded: Callable[[int], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as taken:  # and nobody listens on it
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        told = crowded(1)
        eventually(lambda: told.traces.dropped() == {"export_failed": 8})
        told.traces.close()


def test_collector_that_answers_garbage_has_them_all_the_same(
    crowded: Callable[[int], Told], receiver: Receiver
) -> None:
    with receiver.being("garbage"):
        told = crowded(2)
        eventually(lambda: len(receiver.spans()) == 16)
        told.traces.close()
    assert told.traces.dropped() == {}


class Hanging:
    """An exporter that never comes to an end."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def export(self, spans: Sequence[Any]) -> Any:
        self.goes_on.wait()

    def shutdown(self) -> None:
        self.goes_on.wait()


def test_end_of_the_process_does_not_wait_for_a_collector_that_hangs(
    registry: HookRegistry, receiver: Receiver, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_LAST_SECONDS", 0.05)
    hanging = Hanging()
    told = Told(registry, grace_seconds=0.0, make_exporter=lambda: hanging)
    told.finish(told.speech())
    closing = threading.Thread(target=told.traces.close, daemon=True)
    closing.start()
    closing.join(20.0)
    is_closed = not closing.is_alive()
    hanging.goes_on.set()
    assert is_closed
    assert told.begin() is None


def test_what_the_sdk_refuses_is_said_once_and_nothing_is_traced(
    registry: HookRegistry, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    told = Told(registry)
    told.traces.open()
    assert told.begin() is None
    [message] = [line for line in log.messages if "OpenTelemetry" in line]
    assert "refused what the OTEL_* variables say" in message
    assert "no request is traced" in message


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
