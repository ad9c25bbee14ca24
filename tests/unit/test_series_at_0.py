"""The series of a pipeline are there, at 0, before anything happened: nothing is born at 1.

Prometheus takes the increase of a counter between the samples that it has. A series that is born at
1, as the first failure of a quiet model used to be, has no earlier sample: ``increase()`` says 0,
and no alert fires. From 0 to 1 it says 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus import transfers
from vllm_omni_metrics_plugin.hooks import DiffusionWork, EventsDropped, ReplicaLeft
from vllm_omni_metrics_plugin.testing import make_event

Series = tuple[str, frozenset[tuple[str, str]]]


#: Has no value before it was measured.
MEASURED = f"{catalog.PREFIX}peak_memory_bytes"


def series(exposed: Any) -> set[Series]:
    """Names and labels of all that is published whatever was measured."""
    return {
        (sample.name.removeprefix(catalog.PREFIX), frozenset(sample.labels.items()))
        for family in exposed.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created") and sample.name != MEASURED
    }


def values(exposed: Any) -> set[float]:
    """The values of all counters and histograms."""
    return {
        sample.value
        for family in exposed.registry.collect()
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


class Kind(NamedTuple):
    """A pipeline, and traffic that makes all the series that it can have."""

    replicas: list[dict[str, Any]]
    traffic: Callable[[Feed, Any], None]


def every_ending(feed: Feed) -> None:
    for outcome in ("stop", "length", "abort", "error", "rejected"):
        feed.arrive(outcome)
        feed.submit(outcome)
        feed.finish(outcome, outcome)


def every_drop(exposed: Any) -> None:
    for reason in ("queue_full", "lost", "garbage", "oversized"):
        exposed.hooks.omni_events_dropped(EventsDropped(reason=reason, count=1))


def speak(feed: Feed, exposed: Any) -> None:
    every_ending(feed)
    every_drop(exposed)
    nothing = {"samples": 0, "duration_seconds": None, "first_packet_seconds": None}
    for replica in (0, 1):
        for index in (0, 1):
            feed.packet(replica=replica, index=index)
        feed.finish_audio(replica=replica)
        feed.finish_stage(replica=replica, diffusion=None)
        for sender in (0, 1):
            edge = {"from_replica": sender, "to_replica": replica}
            feed.send(**edge)
            feed.receive(**edge)
            feed.receive(**edge, in_flight_seconds=None)
            feed.fail(operation="send", replica=sender, reason="refused")
    feed.packet(replica=None)
    feed.finish_audio(replica=None)
    feed.finish_audio(sample_rate=None, duration_seconds=None, replica=0)
    feed.finish_audio(generation_seconds=None, replica=0)
    feed.finish_audio(**nothing, replica=0)
    feed.send(to_replica=None)
    feed.send(from_replica=None)
    feed.receive(from_replica=None)
    feed.receive(to_replica=None)


def paint(feed: Feed, exposed: Any) -> None:
    every_ending(feed)
    every_drop(exposed)
    here = {"stage": 0, "replica": 0}
    feed.finish_stage(**here)
    feed.finish_stage(**here, diffusion=DiffusionWork())
    feed.finish_image(**here)
    feed.finish_image(**here, generation_seconds=None)
    feed.finish_image(**here | {"replica": None})
    feed.finish_image(**here, images=0, pixels=())
    feed.finish_image(**here, images=0, pixels=(), unknown_form=True)
    feed.finish_image(**here, unknown_form=True)


def film(feed: Feed, exposed: Any) -> None:
    every_ending(feed)
    every_drop(exposed)
    here = {"stage": 0, "replica": 0}
    feed.finish_stage(**here)
    feed.finish_stage(**here, diffusion=DiffusionWork())
    feed.finish_video(**here)
    feed.finish_video(**here, generation_seconds=None)
    feed.finish_video(**here, frame_rate=None, duration_seconds=None)
    feed.finish_video(**here, frames=0, duration_seconds=None)
    feed.finish_video(**here, frames=None, duration_seconds=None)
    feed.finish_video(**here | {"replica": None})


def write(feed: Feed, exposed: Any) -> None:
    every_ending(feed)
    every_drop(exposed)
    feed.finish_stage(stage=0, replica=0, diffusion=None)


KINDS = {
    "speech": Kind(
        [
            *({"stage": 0, "replica": replica, "feeds": (1,)} for replica in (0, 1)),
            *({"stage": 1, "replica": replica, "makes": ("audio",)} for replica in (0, 1)),
        ],
        speak,
    ),
    "images": Kind([{"stage": 0, "stage_type": "diffusion", "makes": ("image",)}], paint),
    "videos": Kind([{"stage": 0, "stage_type": "diffusion", "makes": ("video",)}], film),
    "text": Kind([{"stage": 0, "makes": ("text",)}], write),
}


def join(exposed: Any, replicas: Iterable[dict[str, Any]]) -> None:
    for replica in replicas:
        exposed.join(**replica)


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "last stage first"])
@pytest.mark.parametrize("kind", KINDS)
def test_series_before_the_first_request_are_those_after_all_traffic(
    feed: Feed, exposed: Any, kind: str, order: int
) -> None:
    join(exposed, KINDS[kind].replicas[::order])
    before = series(exposed)
    assert values(exposed) == {0.0}
    KINDS[kind].traffic(feed, exposed)
    assert series(exposed) == before


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("speech", ("image_", "video_", "diffusion_")),
        ("images", ("audio_", "video_", "transfer_")),
        ("videos", ("audio_", "image_", "transfer_")),
        ("text", ("audio_", "image_", "video_", "diffusion_", "transfer_")),
    ],
)
def test_families_that_a_pipeline_cannot_have_are_absent(
    exposed: Any, kind: str, absent: tuple[str, ...]
) -> None:
    join(exposed, KINDS[kind].replicas)
    named = {name for name, _ in series(exposed)}
    named |= {
        value.removeprefix(catalog.PREFIX)
        for _, labels in series(exposed)
        for label, value in labels
        if label == "family"
    }
    assert [name for name in named if name.startswith(absent)] == []


def test_what_the_engine_does_not_say_is_born_with_its_first_event(
    feed: Feed, exposed: Any
) -> None:
    exposed.join(stage=1, replica=3)
    assert exposed.value("audio_frames_total", model_name="tiny", stage="1", replica="3") is None
    feed.packet(replica=3)
    assert exposed.value("audio_frames_total", model_name="tiny", stage="1", replica="3") == 480


def edges(exposed: Any) -> set[tuple[str, ...]]:
    """Model, then stage and replica of the sender and of the receiver."""
    return {
        tuple(dict(labels)[label] for label in catalog.EDGE)
        for name, labels in series(exposed)
        if name == "transfer_size_bytes_count"
    }


def test_edges_are_those_of_replicas_that_are_there_together(exposed: Any) -> None:
    exposed.join(stage=1, replica=0)
    exposed.join(stage=0, replica=0, feeds=(1,))
    exposed.join(stage=0, replica=0, feeds=(1,), model_name="other")
    exposed.hooks.omni_replica_left(make_event(ReplicaLeft, model_name="tiny", stage=1, replica=0))
    exposed.join(stage=1, replica=1)
    exposed.join(stage=0, replica=1, feeds=(1,))
    assert edges(exposed) == {
        ("tiny", "0", "0", "1", "0"),
        ("tiny", "0", "0", "1", "1"),
        ("tiny", "0", "1", "1", "1"),
    }


def test_most_edges_of_a_very_large_pipeline_are_born_with_their_first_payload(
    feed: Feed, exposed: Any
) -> None:
    for replica in range(20):
        exposed.join(stage=0, replica=replica, feeds=(1,))
        exposed.join(stage=1, replica=replica)
    assert len(edges(exposed)) == transfers.MOST_EDGES_AT_0 < 20 * 20
    feed.send(from_replica=19, to_replica=0)
    feed.send(from_replica=0, to_replica=19)
    assert ("tiny", "0", "19", "1", "0") in edges(exposed)
