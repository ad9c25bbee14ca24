"""Who is traced: what the client says, what is decided at the arrival, and who is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.openmetrics import strictly
from tests.unit.feed import Feed
from tests.unit.test_client_patch import speech
from tests.unit.test_http_patch import ALL, Application, Call, Uvicorn, event, wrap
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.exporters.otel import refusal
from vllm_omni_metrics_plugin.exporters.otel.story import Story
from vllm_omni_metrics_plugin.exporters.otel.tree import spans
from vllm_omni_metrics_plugin.exposition.page import Page
from vllm_omni_metrics_plugin.hooks import (
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferReceived,
    TransferSent,
    plugins,
)
from vllm_omni_metrics_plugin.patches.http import job
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests.client import UNKNOWN, Client
from vllm_omni_metrics_plugin.requests.tracing import Accepted
from vllm_omni_metrics_plugin.settings import Settings
from vllm_omni_metrics_plugin.startup.otel import send_metrics, send_traces
from vllm_omni_metrics_plugin.testing import Recorder, make_event

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Deciding:
    """Traces every request, or every one after the first."""

    def __init__(self, *, first: bool = True) -> None:
        self.accepted: list[Accepted] = []
        self._first = first

    def __call__(self, accepted: Accepted) -> str | None:
        self.accepted.append(accepted)
        return TRACE if self._first or len(self.accepted) > 1 else None


@pytest.fixture
def decided(state: EngineState, monkeypatch: pytest.MonkeyPatch) -> Deciding:
    wrap(monkeypatch, state)
    state.requests.begin_trace = deciding = Deciding()
    return deciding


async def ask(endpoint: Any, *headers: tuple[bytes, bytes], websocket: bool = False) -> None:
    """As a client that sends these headers."""
    server = Uvicorn(websocket=websocket)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = type("Route", (), {"path": "/v1/{kind}"})
        await endpoint(Call(server, scope, receive, send))

    kind = "websocket" if websocket else "http"
    scope = {"type": kind, "path": "/v1/x", "headers": list(headers)}
    await Application(application)(scope, server.receive, server.send)


async def answered(call: Call) -> None:
    await call.outputs(*ALL)
    await call.answer()


# What the client says


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ((), (None, None)),
        (((b"host", b"x"), (b"traceparent", PARENT.encode())), (PARENT, None)),
        (
            ((b"tracestate", b"a=1"), (b"traceparent", PARENT.encode()), (b"tracestate", b"b=2")),
            (PARENT, "a=1,b=2"),
        ),
        (((b"traceparent", b"\xff\x00"),), ("\xff\x00", None)),
    ],
)
def test_clients_trace_and_the_route_come_with_its_request(
    decided: Deciding, headers: Any, said: tuple[str | None, str | None]
) -> None:
    asyncio.run(ask(answered, *headers))
    [accepted] = decided.accepted
    assert accepted.client == Client("/v1/{kind}", "http", *said)
    assert accepted.external_request_id == "speech"


def test_trace_of_a_websockets_client_is_that_of_each_of_its_requests(decided: Deciding) -> None:
    async def endpoint(call: Call) -> None:
        for _ in range(2):
            await call.outputs(*ALL)
            await call.send(event('{"type":"audio.done"}'))

    asyncio.run(ask(endpoint, (b"traceparent", PARENT.encode()), websocket=True))
    assert [one.client.traceparent for one in decided.accepted] == [PARENT, PARENT]


def test_job_belongs_to_the_trace_of_who_ordered_it_however_long_it_takes(
    decided: Deciding,
) -> None:
    async def conversation() -> None:
        working: list[asyncio.Task[None]] = []
        is_answered = asyncio.Event()

        async def work(call: Call) -> None:
            await is_answered.wait()
            with job():
                await call.outputs(*ALL)

        async def endpoint(call: Call) -> None:
            working.append(asyncio.create_task(work(call)))
            await call.answer()

        await ask(endpoint, (b"traceparent", PARENT.encode()))
        is_answered.set()
        await asyncio.gather(*working)

    asyncio.run(conversation())
    [accepted] = decided.accepted
    assert accepted.client == Client("/v1/{kind}", "job", PARENT)


def test_headers_are_not_looked_at_where_nobody_traces(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    wrap(monkeypatch, state)
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.patches.http.Connection.read_trace", lambda *_: 1 / 0
    )
    asyncio.run(ask(answered, (b"traceparent", PARENT.encode())))
    assert recorder.only(RequestArrived).trace_id is None
    assert internal_errors.errors.counts() == {}


def test_headers_that_cannot_be_read_harm_nobody(
    decided: Deciding, recorder: Recorder, log: Any
) -> None:
    asyncio.run(ask(answered, (b"traceparent",)))  # type: ignore[arg-type]
    assert recorder.only(RequestFinished).outcome == "stop"
    assert internal_errors.errors.counts() == {"reading a request": 1}


# What is decided at the arrival


def test_all_events_of_a_request_name_the_trace_that_its_arrival_was_given(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    wrap(monkeypatch, state)
    state.requests.begin_trace = Deciding(first=False)
    outputs = (speech(480), speech(0, finished=True))
    for _ in range(2):
        asyncio.run(ask(lambda call: call.outputs(*outputs)))
    kinds: tuple[Any, ...] = (RequestArrived, MediaPacket, StreamFinished, RequestFinished)
    for kind in kinds:
        assert [found.trace_id for found in recorder.of(kind)] == [None, TRACE], kind


def test_decision_that_fails_costs_the_trace_and_no_more(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, log: Any
) -> None:
    def fail(_: Accepted) -> str | None:
        raise OSError("no entropy")

    wrap(monkeypatch, state)
    state.requests.begin_trace = fail
    asyncio.run(ask(answered))
    assert recorder.only(RequestFinished).trace_id is None
    assert internal_errors.errors.counts() == {"the beginning of a trace": 1}


def test_request_of_a_script_is_accepted_from_nobody(state: EngineState, clock: Any) -> None:
    state.requests.begin_trace = deciding = Deciding()
    state.requests.begin("a-1", "a", "tiny", None)
    assert deciding.accepted == [Accepted("a-1", "a", "tiny", clock.now, UNKNOWN)]


# Exemplars


EXPECTED = {
    "vllm:omni_audio_ttfp_seconds_bucket",
    "vllm:omni_audio_underrun_seconds_bucket",
    "vllm:omni_e2e_request_latency_seconds_bucket",
}


@pytest.mark.parametrize(("trace_id", "expected"), [(TRACE, EXPECTED), (None, set())])
def test_samples_of_a_traced_request_lead_to_its_trace(
    expose: Callable[..., AbstractContextManager[Any]],
    feed: Feed,
    trace_id: str | None,
    expected: set[str],
) -> None:
    with expose() as exposed:
        exposed.join(stage=1, replica=3, makes=("audio",))
        feed.packet(since_arrival_seconds=0.25, trace_id=trace_id)
        feed.finish_stream(trace_id=trace_id)
        feed.finish(seconds=2.0, trace_id=trace_id)
        page = b"".join(Page(exposed.registry).openmetrics())
    found = [sample for sample in strictly(page) if sample.exemplar]
    assert {sample.name for sample in found} == expected
    assert len(found) == len(expected)
    assert all(sample.exemplar.labels == {"trace_id": TRACE} for sample in found)
    assert all(sample.exemplar.value <= float(sample.labels["le"]) for sample in found)


# Whether anything can be sent

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, ["OTEL_EXPORTER_OTLP_ENDPOINT is not set"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ["OTEL_EXPORTER_OTLP_ENDPOINT='' names no endpoint"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a"}, ["OTLP_ENDPOINT is not set"]),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ""},
            ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT='' names no endpoint"],
        ),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, ["OTEL_SDK_DISABLED='True' switches"]),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, ["'http/json'", "grpc"]),
    ],
)
def test_what_is_in_the_way_is_named_with_its_value(
    environ: dict[str, str], words: list[str]
) -> None:
    said = refusal(environ, "TRACES")
    assert said is not None
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    "environ",
    [
        ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a/v1/traces"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "false"},
        {
            **ENDPOINT,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        },
    ],
)
def test_nothing_is_in_the_way_of_an_endpoint(environ: dict[str, str]) -> None:
    assert refusal(environ, "TRACES") is None


def test_sdk_that_is_not_installed_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "vllm_omni_metrics_plugin.exporters.otel.environment.find_spec", lambda _: None
    )
    said = refusal(ENDPOINT, "METRICS")
    assert said is not None
    assert "is not installed" in said
    assert "vllm-omni-metrics-plugin[otel]" in said


@pytest.mark.parametrize("name", ["traces", "otlp_metrics"])
def test_server_sends_what_its_operator_switched_on(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(*next(iter(ENDPOINT.items())))
    chosen = Settings(enabled=True, **{name: True})  # type: ignore[arg-type]
    warnings: list[str] = []
    send_traces(chosen, state, warnings.append)
    send_metrics(chosen, state, warnings.append)
    registered = {"traces", "otlp_metrics"} & set(plugins.names)
    for plugin in registered:
        plugins.unregister(plugin)
    assert registered == {name}
    assert warnings == []
    assert (state.requests.begin_trace is not None) == (name == "traces")
    assert len(state.after_engine) == 1  # and nothing before: what it forks would inherit it


@pytest.mark.parametrize(
    ("chosen", "instead"),
    [
        (Settings(traces=True), ["VLLM_OMNI_METRICS_TRACES is on, but", "no request is traced"]),
        (
            Settings(otlp_metrics=True),
            ["VLLM_OMNI_METRICS_OTLP_METRICS is on, but", "no metrics are sent over OTLP"],
        ),
    ],
)
def test_server_without_an_endpoint_says_so_in_one_warning(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, chosen: Settings, instead: list[str]
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    warnings: list[str] = []
    assert send_traces(chosen, state, warnings.append) is None
    send_metrics(chosen, state, warnings.append)
    [warning] = warnings
    assert all(word in warning for word in [*instead, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"])
    assert state.after_engine == []
    assert state.requests.begin_trace is None


@pytest.mark.parametrize(
    "chosen",
    [
        Settings(),
        Settings(
            traces=True, otlp_metrics=True, hooks_blocked=frozenset({"traces", "otlp_metrics"})
        ),
    ],
)
def test_nothing_is_sent_that_is_off_or_blocked(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, chosen: Settings
) -> None:
    monkeypatch.setenv(*next(iter(ENDPOINT.items())))
    warnings: list[str] = []
    assert send_traces(chosen, state, warnings.append) is None
    send_metrics(chosen, state, warnings.append)
    assert (warnings, state.after_engine) == ([], [])


# No child leaves its parent

TIMES = st.floats(90.0, 110.0)
MAYBE = st.none() | TIMES
STAGES = st.integers(0, 2)
KINDS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (StageSubmitted, {"stage": STAGES, "submitted_at": TIMES}),
    (StageStarted, {"stage": STAGES, "started_at": MAYBE, "input_at": MAYBE}),
    (StageEnded, {"stage": STAGES, "ended_at": MAYBE}),
    (StageFinished, {"stage": STAGES, "finished_at": TIMES}),
    (MediaPacket, {"left_at": TIMES, "stage": STAGES, "samples": st.integers(0, 48_000)}),
    (StreamFinished, {"first_audible_seconds": MAYBE}),
    (TransferSent, {"from_stage": STAGES, "to_stage": STAGES, "sent_at": TIMES}),
    (TransferReceived, {"from_stage": STAGES, "to_stage": STAGES, "received_at": TIMES}),
)
TAKES: dict[Any, Callable[[Story, Any], object]] = {
    StageSubmitted: Story.submitted,
    StageStarted: lambda story, told: story.started(told, needs_input=told.stage == 1),
    StageEnded: Story.stage_ended,
    StageFinished: Story.stage_finished,
    MediaPacket: Story.packet,
    StreamFinished: Story.stream_finished,
    TransferSent: Story.sent,
    TransferReceived: Story.received,
}
TOLD = st.one_of(
    *(
        st.builds(
            lambda kind, fields: make_event(kind, **fields), st.just(k), st.fixed_dictionaries(f)
        )
        for k, f in KINDS
    )
)


@given(st.lists(TOLD, max_size=30), TIMES, st.sampled_from(["stop", "abort", "error"]))
def test_no_span_leaves_its_parent_whatever_is_told(
    told: list[Any], ended_at: float, outcome: str
) -> None:
    story = Story(None, TRACE, "request-1-0123abcd", "x", "tiny", 100.0, "", 0.0)
    for one in told:
        TAKES[type(one)](story, one)
    story.finished(make_event(RequestFinished, outcome=outcome), ended_at)
    made = spans(story, lambda model, stage: None)
    assert made[0].parent is None
    for place, span in enumerate(made):
        assert span.began_at <= span.ended_at
        assert all(span.began_at <= moment.at <= span.ended_at for moment in span.moments)
        if place:
            assert span.parent is not None
            assert span.parent < place
            parent = made[span.parent]
            assert parent.began_at <= span.began_at
            assert span.ended_at <= parent.ended_at
