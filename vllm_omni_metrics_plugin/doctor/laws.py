"""What holds between the numbers of a server's ``/metrics`` whatever it was asked for, as data.

A page is not one moment: its families are read one after the other. So a law is held to several
pages at once. What each side of it may have been meanwhile lies between its lowest and its highest
value, and the law is broken where the two sides cannot have met. The page of an idle server is one
moment, and enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.measures import Count, events, own, unmeasured
from vllm_omni_metrics_plugin.scrape import Sample, Scrape

#: Sums of seconds are added up in different orders.
_SECONDS_APART = 1e-6
_RELATIVELY_APART = 1e-9

_MODEL = ("model_name",)
_OUTCOMES = f"{catalog.PREFIX}requests_success_total"
_STREAMS = f"{catalog.PREFIX}audio_streams_total"


@dataclass(frozen=True)
class Side:
    """A number of a law: the sum of its parts, and the words for it."""

    words: str
    parts: tuple[Count, ...]


@dataclass(frozen=True)
class Law:
    """``left`` is ``right``, or at most ``right``, for each value of the labels ``by``.

    ``cause`` is what is likely if not.
    """

    name: str
    left: Side
    relation: Literal["=", "<="]
    right: Side
    cause: str
    by: tuple[str, ...] = ()
    #: Whether it holds only while no request is open.
    idle: bool = False


class Broken(NamedTuple):
    """A law that does not hold, with the numbers of the last page."""

    law: Law
    labels: dict[str, str]
    left: float
    right: float

    def __str__(self) -> str:
        law = self.law
        about = "".join(f"{name} {value!r}, " for name, value in self.labels.items())
        relation = "not" if law.relation == "=" else "more than"
        return (
            f"{about}{law.left.words} ({self.left:.10g}) are {relation} {law.right.words} "
            f"({self.right:.10g}): {law.cause}"
        )


def _outcomes(*reasons: str) -> Count:
    return Count(_OUTCOMES, {"finished_reason": reasons} if reasons else {})


_CUT_SHORT = _outcomes("abort", "error", "rejected")
_OPEN = (own("num_requests_running"), own("num_requests_waiting"))
_EXPORTER = (
    "the exporter failed at an event (metrics_hook_errors_total), or the plugin itself did "
    "(metrics_internal_errors_total)"
)


def _measured(name: str, words: str, stem: str, hook: str) -> Law:
    """Every event of a hook is a sample of its family, over all replicas, or a missing one."""
    return Law(
        name,
        Side(
            f"the samples of {stem} over all replicas, with the missing ones",
            (own(f"{stem}_count"), unmeasured(stem)),
        ),
        "=",
        Side(f"the {words}", (events(hook),)),
        _EXPORTER,
    )


LAWS: tuple[Law, ...] = (
    Law(
        "accepted",
        Side("the requests that have ended or are open", (_outcomes(), *_OPEN)),
        "=",
        Side("those that arrived", (events("request_arrived"),)),
        "requests were lost with an API server's process that died, ended twice, or are open for "
        "ever",
    ),
    Law(
        "outcomes",
        Side("the outcomes of all models", (_outcomes(),)),
        "=",
        Side("the requests that have ended", (events("request_finished"),)),
        _EXPORTER,
    ),
    Law(
        "failures",
        Side("the reasons of failures", (own("requests_failed_total"),)),
        "=",
        Side("the requests with abort, error or rejected", (_CUT_SHORT,)),
        _EXPORTER,
        _MODEL,
    ),
    Law(
        "latencies",
        Side(
            "the latencies, the missing ones and the requests that were cut short",
            (
                own("e2e_request_latency_seconds_count"),
                unmeasured("e2e_request_latency_seconds"),
                _CUT_SHORT,
            ),
        ),
        "=",
        Side("the outcomes", (_outcomes(),)),
        _EXPORTER,
    ),
    Law(
        "path_to_end",
        Side(
            "the seconds of the critical paths to the end",
            (own("critical_path_seconds_total", anchor="end"),),
        ),
        "=",
        Side("the seconds of the end-to-end latencies", (own("e2e_request_latency_seconds_sum"),)),
        "a segment of a path was counted twice or not at all",
        _MODEL,
    ),
    Law(
        "path_to_first_packet",
        Side(
            "the seconds to the first packet",
            (own("audio_ttfp_seconds_sum"), own("image_ttfp_seconds_sum")),
        ),
        "<=",
        Side(
            "those of the critical paths to it",
            (own("critical_path_seconds_total", anchor="first_packet"),),
        ),
        "a segment of a path was not counted",
        _MODEL,
        idle=True,
    ),
    Law(
        "streams_with_audio",
        Side(
            "the streams that were heard",
            (Count(_STREAMS, {"ending": ("smooth", "stalled", "left_playing", "left_stalled")}),),
        ),
        "<=",
        Side("the underruns", (own("audio_underrun_seconds_count"),)),
        "a stream ended without its underrun",
        catalog.STAGE,
    ),
    Law(
        "endings",
        Side("the underruns", (own("audio_underrun_seconds_count"),)),
        "<=",
        Side("the endings of streams", (Count(_STREAMS),)),
        "a stream has an underrun and no ending",
        catalog.STAGE,
    ),
    Law(
        "verdicts",
        Side("the verdicts", (own("slo_requests_total"),)),
        "<=",
        Side("the requests of the model that have ended", (_outcomes(),)),
        "a request was judged twice by one objective",
        (*_MODEL, "objective"),
    ),
    Law(
        "violations",
        Side("the bad requests", (own("slo_requests_total", verdict="bad"),)),
        "<=",
        Side("what made requests bad", (own("slo_violations_total"),)),
        _EXPORTER,
        (*_MODEL, "objective"),
    ),
    _measured("speech", "outputs of audio", "audio_duration_seconds", "audio_finished"),
    _measured("speech_rtf", "outputs of audio", "audio_rtf", "audio_finished"),
    _measured("images", "outputs of images", "image_generation_time_seconds", "image_finished"),
    _measured("videos", "outputs of video", "video_generation_time_seconds", "video_finished"),
    Law(
        "steps",
        Side("the steps of all requests", (own("num_inference_steps_sum"),)),
        "=",
        Side("the steps of the stage", (own("diffusion_steps_total"),)),
        _EXPORTER,
        catalog.STAGE,
    ),
    Law(
        "hops_sent",
        Side("the sizes of payloads", (own("transfer_size_bytes_count"),)),
        "=",
        Side("their sending times", (own("transfer_tx_time_ms_count"),)),
        _EXPORTER,
        catalog.EDGE,
    ),
    Law(
        "hops_received",
        Side("the payloads that were received", (own("transfer_rx_decode_time_ms_count"),)),
        "<=",
        Side("those that were sent", (own("transfer_size_bytes_count"),)),
        "a payload's sender was not seen, or one was received twice",
        catalog.EDGE,
    ),
    Law(
        "hops_in_flight",
        Side(
            "the times in flight and those between two hosts",
            (
                own("transfer_in_flight_time_ms_count"),
                Count(
                    f"{catalog.PREFIX}metrics_missing_samples_total",
                    {
                        "family": (f"{catalog.PREFIX}transfer_in_flight_time_ms",),
                        "reason": ("other_host",),
                    },
                ),
            ),
        ),
        "=",
        Side("the payloads that were received", (own("transfer_rx_decode_time_ms_count"),)),
        _EXPORTER,
    ),
)


def broken(pages: Sequence[Scrape], laws: Iterable[Law] = LAWS) -> list[Broken]:
    """The laws that cannot have held while these pages of one server were read, in their order."""
    is_idle = not any(part.of(page) for page in pages for part in _OPEN)
    return [
        found
        for law in laws
        if is_idle or not law.idle
        for labels in _groups(law, pages)
        if (found := _held_to(law, labels, pages)) is not None
    ]


@dataclass
class _Range:
    """What a sum may have been."""

    lowest: float = 0.0
    highest: float = 0.0
    last: float = 0.0
    #: Whether there is a series of it at all.
    is_there: bool = field(default=False)

    def add(self, values: Sequence[float | None]) -> None:
        there = [value for value in values if value is not None]
        if there:
            self.lowest += min(there)
            self.highest += max(there)
            self.last += there[-1]
            self.is_there = True


def _held_to(law: Law, labels: dict[str, str], pages: Sequence[Scrape]) -> Broken | None:
    left, right = _range(law.left, labels, pages), _range(law.right, labels, pages)
    if not (left.is_there and right.is_there):
        return None  # of another version of the plugin, or not made by this server
    apart = max(_SECONDS_APART, _RELATIVELY_APART * abs(right.highest))
    holds = left.lowest <= right.highest + apart
    if law.relation == "=":
        holds = holds and right.lowest <= left.highest + apart
    return None if holds else Broken(law, labels, left.last, right.last)


def _range(side: Side, labels: dict[str, str], pages: Sequence[Scrape]) -> _Range:
    total = _Range()
    for part in side.parts:
        total.add([_value(part, labels, page) for page in pages])
    return total


def _value(part: Count, labels: dict[str, str], page: Scrape) -> float | None:
    """The sum of this group's series, None without one; what lacks a label belongs to all."""
    found = [
        sample.value
        for sample in _of(part, page)
        if all(sample.labels.get(name, value) == value for name, value in labels.items())
    ]
    return sum(found) if found else None


def _of(part: Count, page: Scrape) -> Iterator[Sample]:
    for sample in page.named(part.sample):
        if all(sample.labels.get(label) in values for label, values in part.where.items()):
            yield sample


def _groups(law: Law, pages: Sequence[Scrape]) -> list[dict[str, str]]:
    """The values of the law's labels that there are, in the order of the last page."""
    if not law.by:
        return [{}]
    groups: dict[tuple[str, ...], None] = {}
    parts = (*law.left.parts, *law.right.parts)
    for page, part in itertools.product(reversed(pages), parts):
        for sample in _of(part, page):
            if all(label in sample.labels for label in law.by):
                groups[tuple(sample.labels[label] for label in law.by)] = None
    return [dict(zip(law.by, values, strict=True)) for values in groups]
