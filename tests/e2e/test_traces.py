"""Traces of real servers' requests, as a collector receives them, against what was counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.clients import audio, visual
from testbed.prometheus import Exemplar, Prometheus
from testbed.server import Server
from tests.e2e.conftest import Pause, is_idle, observing, outcomes, settled
from tests.otlp import Parent, Received, Receiver, Trace
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

STAGE, REPLICA = "vllm_omni.stage.id", "vllm_omni.stage.replica_id"
DROPPED = "vllm:omni_metrics_spans_dropped_total"
#: Until Prometheus has seen what there is to see, however busy the machine is.
SECONDS = 90.0


def since(trace: Trace, name: str) -> list[float]:
    """Seconds from the arrival to each moment of this name."""
    root = trace.root
    return [(at - root.began_at) / 1e9 for found, at, _ in root.events if found == name]


def spans_by_stage(trace: Trace, name: str) -> dict[tuple[str, str], float]:
    """Seconds of the spans of this name, by stage and replica."""
    found: dict[tuple[str, str], float] = {}
    for span in trace.named(name):
        where = (str(span.attributes[STAGE]), str(span.attributes[REPLICA]))
        found[where] = found.get(where, 0.0) + span.seconds
    return found


def counted_by_stage(gained: Scrape, family: str) -> dict[tuple[str, str], float]:
    """Seconds of a family's samples, where it has any."""
    sets = gained.label_sets(f"vllm:omni_{family}_count")
    return {
        (labels["stage"], labels["replica"]): gained.sum(f"vllm:omni_{family}_sum", **labels)
        for labels in sets
        if gained.sum(f"vllm:omni_{family}_count", **labels)
    }


def assert_is_what_was_counted(trace: Trace, parent: Parent, gained: Scrape, stages: int) -> None:
    """The one request that was made meanwhile."""
    trace.assert_is_a_tree()
    root = trace.root
    assert (root.trace_id, root.parent_id) == (parent.trace_id, parent.span_id)
    [outcome] = outcomes(gained)
    assert root.attributes["vllm_omni.outcome"] == outcome
    assert root.attributes["gen_ai.response.finish_reasons"] == [outcome]
    assert (root.kind, root.status) == (2, 0)
    assert root.seconds >= gained.sum("vllm:omni_e2e_request_latency_seconds_sum") - 1e-6
    assert len(trace.named("omni.stage")) == stages
    for name, family in (
        ("execute", "stage_execute_time_seconds"),
        ("queue", "stage_queue_time_seconds"),
    ):
        shown = spans_by_stage(trace, name)
        assert len(shown) == stages, (name, shown)
        assert shown == pytest.approx(counted_by_stage(gained, family), abs=1e-6), name
    for stage in trace.named("omni.stage"):
        [_] = trace.below(stage, "queue")
        [_] = trace.below(stage, "execute")


def assert_heard_is_what_was_counted(trace: Trace, gained: Scrape) -> None:
    """Of one streamed response."""
    whole = ("first_packet", "audio_ttfp"), ("first_audible", "audio_first_audible")
    for name, family in whole:
        counted = gained.sum(f"vllm:omni_{family}_seconds_sum")
        assert since(trace, name) == pytest.approx([counted], abs=1e-6), name
    stalls = gained.sum("vllm:omni_audio_stalls_total", player="0")
    assert len(since(trace, "stall")) == min(stalls, 62)


def assert_edges_are_what_was_counted(trace: Trace, gained: Scrape) -> None:
    """Each from one stage to the next, whose span it follows from."""
    transfers = trace.named("omni.transfer")
    assert len(transfers) == len(trace.named("omni.stage")) - 1
    for transfer in transfers:
        origin = transfer.attributes["vllm_omni.transfer.from_stage.id"]
        here = transfer.attributes[STAGE]
        assert transfer.parent_id == trace.stage(here).span_id
        assert transfer.links == [trace.stage(origin).span_id]
        edge = {"from_stage": str(origin), "to_stage": str(here)}
        payloads = transfer.attributes["vllm_omni.transfer.payloads"]
        assert payloads == gained.sum("vllm:omni_transfer_rx_decode_time_ms_count", **edge)
        assert len(transfer.events) == min(payloads, 64)


def traced(
    server: Server, collector: Receiver, ask: Callable[[str], object]
) -> tuple[Trace, Parent, Scrape]:
    """The trace of a request, and what was counted of it.

    What is told late of a request is in both of them, or in none: its trace is made after that. So
    what is told late of an earlier one is in neither.
    """
    parents = Parent(), Parent()
    ask(parents[0].header)
    collector.trace(parents[0].began)
    before = settled(server, is_idle)
    ask(parents[1].header)
    trace = collector.trace(parents[1].began)
    return trace, parents[1], settled(server, is_idle) - before


def test_streamed_speech_is_traced_through_its_stages(
    speech_server: Server, collector: Receiver, logs: Path
) -> None:
    def ask(traceparent: str) -> None:
        answer = audio.speech(speech_server.url, tokens=40, stream="audio", traceparent=traceparent)
        assert answer.status == 200

    trace, parent, gained = traced(speech_server, collector, ask)
    assert_is_what_was_counted(trace, parent, gained, stages=2)
    assert_heard_is_what_was_counted(trace, gained)
    assert_edges_are_what_was_counted(trace, gained)
    about = trace.root.attributes
    assert about["gen_ai.output.type"] == "speech"
    assert about["gen_ai.request.model"] == speech_server.model
    assert about["http.route"] == "/v1/audio/speech"
    assert about["vllm_omni.request.id"] in (logs / "speech.log").read_text(errors="replace")
    assert not [span for span in trace.others if span.status]


def test_chat_in_text_and_sound_is_traced_through_its_stages(
    chat_server: Server, collector: Receiver
) -> None:
    answers: list[audio.Answer] = []

    def ask(traceparent: str) -> None:
        answers.append(audio.chat(chat_server.url, stream=True, traceparent=traceparent))

    trace, parent, gained = traced(chat_server, collector, ask)
    assert answers[1].status == 200
    assert_is_what_was_counted(trace, parent, gained, stages=3)
    assert_edges_are_what_was_counted(trace, gained)
    assert trace.root.attributes["gen_ai.usage.input_tokens"] == answers[1].prompt_tokens
    assert trace.root.attributes["gen_ai.output.type"] == "speech"


def test_image_is_traced(image_server: Server, collector: Receiver) -> None:
    def ask(traceparent: str) -> None:
        assert visual.images(image_server.url, traceparent=traceparent).status == 200

    trace, parent, gained = traced(image_server, collector, ask)
    assert_is_what_was_counted(trace, parent, gained, stages=1)
    assert trace.root.attributes["gen_ai.output.type"] == "image"
    assert trace.named("omni.transfer") == []


def test_request_whose_client_does_not_trace_is_not_traced(
    speech_server: Server, collector: Receiver
) -> None:
    parent = Parent()
    assert audio.speech(speech_server.url, tokens=5).status == 200
    assert audio.speech(speech_server.url, tokens=5, traceparent=parent.header).status == 200
    collector.trace(parent.began)  # after which an earlier one would have come
    roots = [span for span in collector.spans() if span.name == "omni.request"]
    assert all(root.parent_id for root in roots)


def test_client_that_leaves_ends_its_trace_without_an_error_of_the_server(
    speech_server: Server, collector: Receiver, pause: Pause
) -> None:
    parent = Parent()
    pause("0.5")  # else it might be done before its client is gone
    with observing(speech_server) as seen:
        audio.speech(
            speech_server.url,
            tokens=240,
            stream="audio",
            hang_up_after_packets=1,
            traceparent=parent.header,
        )
    assert outcomes(seen.gained) == {"abort": 1}
    trace = collector.trace(parent.began)
    trace.assert_is_a_tree()
    assert_failed(trace.root, "abort", "client_disconnect")
    assert len(since(trace, "abort")) == 1


def test_request_that_is_refused_ends_its_trace_without_an_error_of_the_server(
    speech_server: Server, collector: Receiver
) -> None:
    parent = Parent()
    with observing(speech_server) as seen:
        answer = audio.speech(speech_server.url, tokens=1, traceparent=parent.header)
    assert answer.status == 400
    assert outcomes(seen.gained) == {"rejected": 1}
    trace = collector.trace(parent.began)
    trace.assert_is_a_tree()
    assert_failed(trace.root, "rejected", "invalid_request")
    assert trace.root.attributes["http.response.status_code"] == 400


def assert_failed(root: Received, outcome: str, failure: str) -> None:
    assert (root.status, root.message) == (0, "")
    assert root.attributes["vllm_omni.outcome"] == outcome
    assert root.attributes["error.type"] == failure
    assert "gen_ai.response.finish_reasons" not in root.attributes


def test_collector_that_refuses_costs_spans_that_are_counted_and_no_response(
    speech_server: Server, collector: Receiver
) -> None:
    def lost(seen: Scrape) -> float:
        return seen.sum(DROPPED, reason="export_failed")

    before = lost(scrape(speech_server.url))
    with collector.being("refuses"):
        parent = Parent()
        answer = audio.speech(
            speech_server.url, tokens=10, stream="audio", traceparent=parent.header
        )
        # The request, two stages, and what they did.
        seen = settled(speech_server, lambda now: lost(now) >= before + 7)
    assert answer.status == 200
    assert lost(seen) >= before + 7
    parent = Parent()
    assert audio.speech(speech_server.url, tokens=5, traceparent=parent.header).status == 200
    collector.trace(parent.began).assert_is_a_tree()


def test_slow_bucket_leads_to_the_trace_of_a_request_in_it(
    speech_server: Server, collector: Receiver, prometheus: Prometheus
) -> None:
    began = time.time()
    parent = Parent()
    prometheus.watch(speech_server.url)
    try:
        answer = audio.speech(
            speech_server.url, tokens=20, stream="audio", traceparent=parent.header
        )
        assert answer.status == 200
        for family in ("audio_ttfp", "audio_underrun", "e2e_request_latency"):
            name = f"vllm:omni_{family}_seconds_bucket"
            found = joined(prometheus, name, began, parent.trace_id)
            assert found.value <= float(found.series["le"])
    finally:
        prometheus.forget(speech_server.url)
    assert collector.trace(parent.began).root.trace_id == parent.trace_id


def joined(prometheus: Prometheus, name: str, began: float, trace_id: str) -> Exemplar:
    """The exemplar of a family that leads to this trace, once it is stored."""
    deadline = time.monotonic() + SECONDS
    while True:
        stored = prometheus.exemplars(name, began - 60.0)
        found = [one for one in stored if one.labels == {"trace_id": trace_id}]
        if found:
            return found[0]
        assert time.monotonic() < deadline, (name, stored)
        time.sleep(0.5)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_prometheus_stores_types_whichever_path_it_scrapes(
    speech_server: Server, prometheus: Prometheus, path: str
) -> None:
    asked = f"{path.strip('/')}-{len(path)}"
    prometheus.watch(speech_server.url, __metrics_path__=path, asked=asked)
    try:
        deadline = time.monotonic() + SECONDS
        while not (types := prometheus.types(f'{{asked="{asked}"}}')):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        prometheus.forget(speech_server.url)
    # OpenMetrics names counters without the ending of their samples.
    assert types["vllm:omni_audio_ttfp_seconds"] == "histogram"
    assert types["vllm:omni_requests_success"] == "counter"
    assert types["vllm:omni_num_requests_running"] == "gauge"
    assert types["vllm:generation_tokens"] == "counter"
    assert "unknown" not in {kind for name, kind in types.items() if name.startswith("vllm:")}
