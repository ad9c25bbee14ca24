"""The page that a scripted traffic makes, to the last byte.

``data/exposition.prom`` was recorded from the exporter as it was before it was taken apart. A line
there changes only with a family's definition; ``python -m tests.unit.test_exposition`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.unit.feed import WORK, Feed
from vllm_omni_metrics_plugin import catalog, internal_errors
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter, backlog, queues
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    BargeIn,
    Demand,
    DiffusionWork,
    Event,
    EventsDropped,
    HookRegistry,
    ImageFinished,
    KvWaited,
    MediaPacket,
    PatchReported,
    PathSegment,
    ReplicaJoined,
    ReplicaLeft,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    Segment,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    StageEnded,
    StageFinished,
    StageStarted,
    StageSubmitted,
    StreamFinished,
    TransferFailed,
    TransferReceived,
    TransferSent,
    TurnFinished,
    TurnPlayed,
    VideoFinished,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
    hookimpl,
)
from vllm_omni_metrics_plugin.objectives import Objective
from vllm_omni_metrics_plugin.testing import make_event

RECORDED = Path(__file__).parent / "data" / "exposition.prom"
OBJECTIVES = (
    Objective("prompt", 0.95, {"audio_ttfp_seconds": 0.5, "audio_rtf": 1.0}),
    Objective("elsewhere", 0.9, {"image_pixels": 65536.0}, models=frozenset({"other"})),
)


class Broken:
    """A hook plugin whose faults are counted."""

    @hookimpl
    def omni_request_arrived(self, event: RequestArrived) -> None:
        raise RuntimeError


def traffic() -> Iterator[Event]:
    """Events that feed every family, and leave out in turn what can be left out."""
    yield from patches_and_replicas()
    yield from requests()
    yield from executions()
    yield from audio()
    yield from streams()
    yield from unfinished()
    yield from images()
    yield from videos()
    yield from diffusion()
    yield from transfers()
    yield from judged()
    yield from sessions()
    for reason, count in (("lost", 3), ("queue_full", 5), ("lost", 1)):
        yield make_event(EventsDropped, reason=reason, count=count)
    yield make_event(ReplicaLeft, model_name="tiny", stage=1, replica=1)
    yield make_event(ReplicaLeft, model_name="tiny", stage=7, replica=7)


def sessions() -> Iterator[Event]:
    whose = {"model_name": "tiny"}
    for _ in range(3):
        yield make_event(SessionOpened, **whose)
    for code in ("resource_exhausted", "of tomorrow"):
        yield make_event(SessionRefused, **whose, code=code)
    for attached in (False, True, False):
        yield make_event(SessionAttachment, **whose, attached=attached)
    turns: list[dict[str, Any]] = [
        {"outcome": "stop"},
        {"outcome": "length", "endpoint_delay_seconds": None, "origin": "commit"},
        {"outcome": "barge_in", "heard_latency_seconds": None, "endpoint_delay_seconds": None},
        {"outcome": "stop", "deferred": True},
        {"outcome": "error", "samples": 0, "latency_seconds": None},
    ]
    for turn in turns:
        yield make_event(TurnFinished, **{**whose, "samples": 48_000, **turn})
    yield make_event(TurnPlayed, **whose, stage=1, replica=0, acknowledged=7, discarded=5)
    yield make_event(TurnPlayed, **whose, stage=1, replica=0, unknown=11, unheard=True)
    yield make_event(TurnPlayed, **whose, stage=1, replica=None)
    for seconds in (0.25, None):
        yield make_event(BargeIn, **whose, reaction_seconds=seconds)
    for active in (True, True, False):
        yield make_event(VoiceDetection, **whose, active=active)
    yield make_event(VoiceScored, **whose, inference_seconds=(0.00025, 0.5))
    yield make_event(VoiceScored, **whose, inference_seconds=(0.000125,))
    for reason in ("unavailable", "failed", "failed"):
        yield make_event(VoiceFailed, **whose, reason=reason)
    for reason, attached in (("client", True), ("disconnect", False)):
        yield make_event(SessionClosed, **whose, reason=reason, attached=attached)


def patches_and_replicas() -> Iterator[Event]:
    late = {"name": "late", "target": "engine.late:Late.method"}
    yield make_event(PatchReported, **late, status="deferred", reason="not imported yet")
    yield make_event(PatchReported, name="gone", target="engine:gone", status="skipped", reason="-")
    for stage, replica, name in ((0, 0, "talker"), (1, 0, "code2wav"), (1, 1, "code2wav")):
        yield make_event(
            ReplicaJoined,
            model_name="tiny",
            stage=stage,
            replica=replica,
            stage_name=name,
            stage_type="llm",
            feeds=(1,) if stage == 0 else (),
        )
    for model_name in ("other", "drawn"):
        yield make_event(
            ReplicaJoined,
            model_name=model_name,
            stage=0,
            replica=0,
            stage_name="dit",
            stage_type="diffusion",
        )
    yield make_event(PatchReported, **late, status="applied", reason="")


def requests() -> Iterator[Event]:
    outcomes = ("stop", "length", "abort", "error", "rejected", "repetition", "stop")
    failures = {"abort": "client_disconnect", "error": "dead_replica", "rejected": "of tomorrow"}
    for number, outcome in enumerate(outcomes):
        whose = {"request_id": f"r{number}", "model_name": "other" if number == 1 else "tiny"}
        yield make_event(RequestArrived, **whose, external_request_id="x", arrived_at=1.0)
        if outcome != "error":
            for stage in (0, 1):
                yield make_event(
                    StageSubmitted,
                    request_id=f"r{number}",
                    stage=stage,
                    replica=0,
                    submitted_at=1.5,
                    model_name=whose["model_name"],
                    first=stage == 0,
                )
            yield make_event(
                StageStarted,
                request_id=f"r{number}",
                stage=0,
                replica=0,
                started_at=1.75,
                submitted_at=1.5,
                model_name=whose["model_name"],
            )
        yield make_event(
            RequestFinished,
            **whose,
            outcome=outcome,
            end_to_end_seconds=0.25 * (number + 1),
            queue_seconds=None if outcome == "error" else 0.002 * (number + 1),
            dispatched=outcome != "error",
            started=outcome != "error",
            first_packet_path=path(1, 2.0) if number % 2 else (),
            critical_path=path(1, 2.5) if outcome in ("stop", "length") else (),
            failure=failures.get(outcome),
        )
    for number in range(5):  # two of these wait, three run
        request_id = f"open{number}"
        yield make_event(
            RequestArrived,
            request_id=request_id,
            model_name="tiny",
            external_request_id="x",
            arrived_at=1.0,
        )
        if number > 1:
            yield make_event(
                StageSubmitted,
                request_id=request_id,
                stage=0,
                replica=0,
                submitted_at=2.0,
                model_name="tiny",
                first=True,
            )
            yield make_event(
                StageStarted,
                request_id=request_id,
                stage=0,
                replica=0,
                started_at=3.0,
                submitted_at=2.0,
                model_name="tiny",
            )


def path(stage: int, until: float) -> tuple[PathSegment, ...]:
    """One that knows nothing of what came before ``stage`` had its input."""
    segments: tuple[tuple[Segment, float, float], ...] = (
        *(("unknown", 1.0, 1.5), ("transfer", 1.5, 1.625)),
        *(("queue", 1.625, 1.75), ("execute", 1.75, until)),
    )
    return tuple(
        PathSegment(segment=segment, stage=stage, began_at=began_at, ended_at=ended_at)
        for segment, began_at, ended_at in segments
    )


def executions() -> Iterator[Event]:
    whole = {"request_id": "e", "model_name": "tiny", "stage": 1, "replica": 0}
    for submitted_at, input_at, started_at in (
        (2.0, 2.5, 3.0),
        (2.0, 4.0, 3.0),
        (2.0, None, 3.0),
        (2.0, 2.5, None),
        (None, None, 3.0),
    ):
        yield make_event(
            StageStarted,
            **whole,
            submitted_at=submitted_at,
            input_at=input_at,
            started_at=started_at,
        )
    yield make_event(StageStarted, **(whole | {"parent_request_id": "r0"}), started_at=3.0)
    for started_at, ended_at in ((3.0, 4.5), (None, 4.5), (3.0, None)):
        yield make_event(StageEnded, **whole, started_at=started_at, ended_at=ended_at)
    for seconds in (2.5, None):
        yield make_event(
            StageFinished, **whole, finished_at=4.5, generation_seconds=seconds, diffusion=None
        )


def unfinished() -> Iterator[Event]:
    """One image of 8 pixels was made in 2 s, one of 24 is half a second old."""
    where = {"model_name": "drawn", "stage": 0, "replica": 0}
    for request_id, pixels, started_at in (("done", 8, 5.0), ("under way", 24, 9.5)):
        whose = {"request_id": request_id, "model_name": "drawn"}
        here = {**whose, **where}
        yield make_event(RequestArrived, **whose, external_request_id="x", arrived_at=4.0)
        demands = (Demand(steps=1, pixels=pixels),)
        yield make_event(StageSubmitted, **here, submitted_at=4.0, first=True, demands=demands)
        yield make_event(StageStarted, **here, submitted_at=4.0, started_at=started_at)
        if request_id == "done":
            yield make_event(StageEnded, **here, started_at=started_at, ended_at=7.0)
            yield make_event(StageFinished, **here, finished_at=7.0, diffusion=None)
            yield make_event(RequestFinished, **whose, outcome="stop")


def streams() -> Iterator[Event]:
    whole = {"request_id": "a", "model_name": "tiny", "stage": 1}
    yield make_event(StreamFinished, **whole, replica=0)
    yield make_event(StreamFinished, **whole, replica=0, ending="smooth", underrun_seconds=0.0)
    for unheard in ("left_before_sound", "no_audible_sound", "on_device"):
        silence = 0.3 if unheard == "left_before_sound" else None
        yield make_event(
            StreamFinished,
            **whole,
            replica=0,
            leading_silence_seconds=silence,
            first_audible_seconds=None,
            unheard=unheard,
        )
    silent = {
        **{"ending": "left_before_audio", "underrun_seconds": None, "players": ()},
        **{"leading_silence_seconds": None, "first_audible_seconds": None},
    }
    yield make_event(StreamFinished, **whole, replica=1, **silent)
    yield make_event(StreamFinished, **whole, replica=None)
    yield make_event(StreamFinished, **whole, replica=0, **{**silent, "ending": None})


def audio() -> Iterator[Event]:
    for streamed in (True, False):
        for replica in (0, 1, None):
            for index in range(2):
                yield make_event(
                    MediaPacket,
                    request_id="a",
                    model_name="tiny",
                    modality="audio",
                    index=index,
                    samples=1920 + index,
                    sample_rate=24_000,
                    stage=1,
                    replica=replica,
                    left_at=2.0,
                    since_arrival_seconds=0.3 + 0.1 * index,
                    streamed=streamed,
                )
    whole = {
        "request_id": "a",
        "model_name": "tiny",
        "stage": 1,
        "replica": 0,
        "samples": 48_000,
        "sample_rate": 24_000,
        "duration_seconds": 2.0,
        "generation_seconds": 1.5,
        "first_packet_seconds": 0.3,
        "streamed": True,
    }
    empty = {"samples": 0, "duration_seconds": None}
    for changes in (
        {},
        {"replica": 1, "generation_seconds": 0.0},
        {"replica": None},
        {"generation_seconds": None},
        {"sample_rate": None, "duration_seconds": None},
        empty,
        {**empty, "streamed": False},
    ):
        yield make_event(AudioFinished, **(whole | changes))


def images() -> Iterator[Event]:
    whole = {
        "request_id": "i",
        "model_name": "other",
        "stage": 0,
        "replica": 0,
        "images": 2,
        "pixels": (65_536, 1_048_576),
        "unknown_form": False,
        "first_image_seconds": 1.5,
        "generation_seconds": 1.25,
        "diffusion": WORK,
    }
    none = {"images": 0, "pixels": (), "first_image_seconds": None}
    for changes in (
        {},
        {"replica": None},
        none,
        {**none, "unknown_form": True},
        {"unknown_form": True},
        {"generation_seconds": None},
        {"first_image_seconds": None},
    ):
        yield make_event(ImageFinished, **(whole | changes))


def videos() -> Iterator[Event]:
    whole = {
        "request_id": "v",
        "model_name": "other",
        "stage": 0,
        "replica": 0,
        "videos": 1,
        "frames": 48,
        "frame_rate": 16.0,
        "duration_seconds": 3.0,
        "first_video_seconds": 13.0,
        "generation_seconds": 12.0,
        "diffusion": WORK,
    }
    for changes in (
        {},
        {"replica": None},
        {"frames": 0, "duration_seconds": None},
        {"frames": None, "duration_seconds": None},
        {"generation_seconds": None},
        {"frame_rate": None, "duration_seconds": None},
        {"frame_rate": None, "duration_seconds": None, "generation_seconds": None},
    ):
        yield make_event(VideoFinished, **(whole | changes))


def diffusion() -> Iterator[Event]:
    for model_name, work in (
        ("other", WORK),
        ("other", DiffusionWork()),
        ("other", DiffusionWork(steps=0, exec_seconds=0.5)),
        ("other", None),
        (None, WORK),
    ):
        yield make_event(
            StageFinished,
            request_id="s",
            model_name=model_name,
            stage=0,
            replica=0,
            finished_at=3.0,
            generation_seconds=1.0,
            tokens_in=0,
            tokens_out=0,
            finish_reason=None,
            diffusion=work,
        )
    for stage, tokens_in, tokens_out in ((0, 12, 25), (1, 0, 40), (0, None, None)):
        yield make_event(
            StageFinished,
            request_id="t",
            model_name="tiny",
            stage=stage,
            replica=0,
            finished_at=3.0,
            generation_seconds=1.0,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            finish_reason="stop",
            diffusion=None,
        )


def transfers() -> Iterator[Event]:
    hop = {"from_stage": 0, "to_stage": 1, "key": "k", "connector": "C", "clock": "here"}
    edge = {"model_name": "tiny", "from_replica": 0, "to_replica": 1}
    sent: tuple[dict[str, Any], ...] = (
        {},
        {"to_replica": None},
        {"from_replica": None},
        {"model_name": None},
    )
    for changes in sent:
        yield make_event(
            TransferSent,
            **(hop | edge | changes),
            size_bytes=300,
            duration_seconds=0.002,
            sent_at=1.0,
        )
    received: tuple[tuple[float | None, dict[str, Any]], ...] = (
        (0.25, {}),
        (None, {"to_replica": 0}),
        (None, {"from_replica": None}),
        (None, {"to_replica": None}),
        (None, {"model_name": None}),
    )
    for in_flight, changes in received:
        yield make_event(
            TransferReceived,
            **(hop | edge | changes),
            size_bytes=300,
            duration_seconds=0.003,
            received_at=1.1,
            in_flight_seconds=in_flight,
        )
    for replica in (0, None):
        yield make_event(
            KvWaited,
            model_name="tiny",
            stage=0,
            replica=replica,
            connector="C",
            wait_seconds=0.0625,
        )
    for model_name, replica in (("tiny", 1), (None, None), ("tiny", 1)):
        yield make_event(
            TransferFailed,
            model_name=model_name,
            from_stage=0,
            to_stage=1,
            operation="receive",
            replica=replica,
            key="k",
            connector="C",
            reason="OSError",
        )


def judged() -> Iterator[Event]:
    for verdict, broken in (
        ("good", ()),
        ("excluded", ()),
        ("unknown", ()),
        ("bad", ("audio_ttfp_seconds", "audio_rtf", "error")),
        ("bad", ("audio_rtf",)),
    ):
        yield make_event(
            RequestJudged,
            request_id="a",
            model_name="tiny",
            objective="prompt",
            verdict=verdict,
            broken=broken,
        )


def page() -> str:
    """What a scrape shows after the traffic, without the times at which series were created."""
    plugins, shown = HookRegistry(), CollectorRegistry()
    exporter = PrometheusExporter(
        {"video_rtf": (0.5, 4.0)},
        plugins.stats,
        shown,
        held=lambda: {("late_starts", "late_starts_total", "request_id"): 4},
        spans_dropped=lambda: {"queue_full": 3},
        objectives=OBJECTIVES,
    )
    plugins.register(exporter, "prometheus")
    plugins.register(Broken(), "broken")
    feed = Feed(plugins.hooks)
    for event in traffic():
        feed.event(event)
    internal_errors.errors.add("reading an output", 2)
    standing = SimpleNamespace(monotonic=lambda: 10.0)
    with mock.patch.object(queues, "time", standing), mock.patch.object(backlog, "time", standing):
        generate_latest(shown)  # what is carried over when somebody looks is carried over once
        lines = generate_latest(shown).decode().splitlines(keepends=True)
    exporter.close()
    return "".join(line for line in lines if "_created" not in line)


def test_page_of_a_scripted_traffic_is_what_it_was() -> None:
    assert page() == RECORDED.read_text()


@pytest.mark.parametrize("family", catalog.FAMILIES, ids=lambda family: family.stem)
def test_recorded_page_has_samples_of_every_family(family: catalog.Family) -> None:
    lines = RECORDED.read_text().splitlines()
    assert any(line.startswith(f"{family.name}{{") for line in lines) or any(
        line.startswith(f"{family.name}_count{{") for line in lines
    )


if __name__ == "__main__":
    RECORDED.write_text(page())
