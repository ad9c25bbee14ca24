"""The families of sessions of speech in and out at once, by the events that feed them."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import (
    BargeIn,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TurnFinished,
    TurnPlayed,
)
from vllm_omni_metrics_plugin.testing import make_event

STEMS = {family.stem for family in catalog.FAMILIES if family.event.startswith("omni_session")} | {
    family.stem for family in catalog.FAMILIES if family.event.startswith("omni_turn")
}


def series(exposed: Any) -> dict[tuple[str, ...], float]:
    """Of the families of sessions, but for the buckets."""
    return {
        (sample.name.removeprefix(catalog.PREFIX), *sample.labels.values()): sample.value
        for family in exposed.registry.collect()
        for sample in family.samples
        if any(sample.name.startswith(catalog.PREFIX + stem) for stem in STEMS)
        and not sample.name.endswith(("_bucket", "_created"))
    }


def sessions(exposed: Any) -> tuple[float | None, float | None]:
    """How many are open and detached."""
    return (
        exposed.value("sessions", model_name="tiny", state="open"),
        exposed.value("sessions", model_name="tiny", state="detached"),
    )


def test_engine_without_a_session_has_no_series_of_any(exposed: Any) -> None:
    exposed.join(makes=("audio",))
    assert series(exposed) == {}


def test_everything_stands_at_0_with_the_first_session(exposed: Any) -> None:
    exposed.join(makes=("audio",))
    exposed.hooks.omni_session_opened(make_event(SessionOpened))
    shown = series(exposed)
    assert {key: value for key, value in shown.items() if value} == {
        ("sessions", "tiny", "open"): 1
    }
    expected: list[tuple[str, ...]] = [
        ("turns_total", "tiny", outcome) for outcome in ("stop", "barge_in", "error")
    ]
    expected += [("turn_audio_samples_total", "tiny", "1", "0", "discarded")]
    expected += [("sessions_refused_total", "tiny", "resource_exhausted")]
    expected += [("sessions_closed_total", "tiny", "disconnect"), ("turns_unheard_total", "tiny")]
    assert set(expected) <= set(shown)
    before = set(shown)
    for outcome in catalog.BY_STEM["turns_total"].known["outcome"]:
        exposed.hooks.omni_turn_finished(make_event(TurnFinished, outcome=outcome))
    exposed.hooks.omni_turn_played(make_event(TurnPlayed, replica=0))
    exposed.hooks.omni_session_closed(make_event(SessionClosed))
    assert set(series(exposed)) == before, "nothing is born at 1"


def test_replica_that_joins_later_has_its_series_too(exposed: Any) -> None:
    exposed.join(makes=("audio",))
    exposed.hooks.omni_session_opened(make_event(SessionOpened))
    exposed.join(makes=("audio",), replica=1)
    assert ("turn_audio_samples_total", "tiny", "1", "1", "unknown") in series(exposed)


@pytest.mark.parametrize("comes_back", [False, True])
def test_sessions_are_open_or_detached_and_0_in_the_end(exposed: Any, comes_back: bool) -> None:
    exposed.join()
    for _ in range(2):
        exposed.hooks.omni_session_opened(make_event(SessionOpened))
    assert sessions(exposed) == (2, 0)
    exposed.hooks.omni_session_attachment(make_event(SessionAttachment, attached=False))
    assert sessions(exposed) == (1, 1)
    if comes_back:
        exposed.hooks.omni_session_attachment(make_event(SessionAttachment, attached=True))
        assert sessions(exposed) == (2, 0)
    exposed.hooks.omni_session_closed(make_event(SessionClosed, attached=comes_back))
    assert sessions(exposed) == (1, 0)
    exposed.hooks.omni_session_closed(make_event(SessionClosed, attached=True))
    assert sessions(exposed) == (0, 0)
    reasons = {"model_name": "tiny", "reason": "client"}
    assert exposed.value("sessions_closed_total", **reasons) == 2
    assert exposed.value("session_duration_seconds_sum", model_name="tiny") == 120.0


@pytest.mark.parametrize(
    ("code", "counted"), [("resource_exhausted",) * 2, ("timeout",) * 2, ("of_tomorrow", "other")]
)
def test_refusal_counts_by_its_code(exposed: Any, code: str, counted: str) -> None:
    exposed.join()
    exposed.hooks.omni_session_refused(make_event(SessionRefused, code=code))
    assert exposed.value("sessions_refused_total", model_name="tiny", code=counted) == 1


LATENCY, HEARD = "turn_latency_seconds", "turn_heard_latency_seconds"
ENDPOINT = "turn_endpoint_delay_seconds"


@pytest.mark.parametrize(
    ("turn", "observed", "missing"),
    [
        ({}, {LATENCY: 0.4, HEARD: 0.9, ENDPOINT: 0.5}, set()),
        (
            {"origin": "commit", "endpoint_delay_seconds": None},
            {LATENCY: 0.4, HEARD: 0.9},
            set(),
        ),
        (
            {"heard_latency_seconds": None, "endpoint_delay_seconds": None},
            {LATENCY: 0.4},
            {(HEARD, "unknown_speech"), (ENDPOINT, "unknown_speech")},
        ),
        (
            {
                "origin": "request",
                "heard_latency_seconds": None,
                "endpoint_delay_seconds": None,
            },
            {LATENCY: 0.4},
            set(),
        ),
        (
            {"deferred": True, "latency_seconds": None, "heard_latency_seconds": None},
            {ENDPOINT: 0.5},
            {(LATENCY, "deferred"), (HEARD, "deferred")},
        ),
        (
            {
                "origin": "model",
                "latency_seconds": None,
                "heard_latency_seconds": None,
                "endpoint_delay_seconds": None,
            },
            {},
            {(LATENCY, "unknown_speech"), (HEARD, "unknown_speech")},
        ),
        (
            {"samples": 0, "latency_seconds": None, "heard_latency_seconds": None},
            {ENDPOINT: 0.5},
            set(),
        ),
    ],
)
def test_turn_is_timed_or_its_sample_is_missing(
    exposed: Any,
    turn: dict[str, Any],
    observed: dict[str, float],
    missing: set[tuple[str, str]],
) -> None:
    exposed.join()
    exposed.hooks.omni_turn_finished(make_event(TurnFinished, **turn))
    for stem in (LATENCY, HEARD, ENDPOINT):
        count = exposed.value(f"{stem}_count", model_name="tiny")
        assert count == (1 if stem in observed else 0), stem
        if stem in observed:
            assert exposed.value(f"{stem}_sum", model_name="tiny") == observed[stem]
    assert set(exposed.missing()) == missing


def test_audio_counts_by_its_fate_and_as_unheard(exposed: Any) -> None:
    exposed.join()
    event = make_event(TurnPlayed, replica=0, acknowledged=7, discarded=5, unknown=3, unheard=True)
    exposed.hooks.omni_turn_played(event)
    exposed.hooks.omni_turn_played(make_event(TurnPlayed, replica=None))
    labels = {"model_name": "tiny", "stage": "1", "replica": "0"}
    for fate, samples in (("acknowledged", 7), ("discarded", 5), ("unknown", 3)):
        assert exposed.value("turn_audio_samples_total", **labels, fate=fate) == samples
    assert exposed.value("turns_unheard_total", model_name="tiny") == 1
    assert exposed.missing() == {("turn_audio_samples_total", "unknown_replica"): 1}


def test_reaction_to_a_barge_in_is_timed_or_missing(exposed: Any) -> None:
    exposed.join()
    exposed.hooks.omni_barge_in(make_event(BargeIn, reaction_seconds=0.25))
    exposed.hooks.omni_barge_in(make_event(BargeIn, reaction_seconds=None))
    assert exposed.value("barge_in_reaction_seconds_sum", model_name="tiny") == 0.25
    assert exposed.value("barge_in_reaction_seconds_count", model_name="tiny") == 1
    assert exposed.missing() == {("barge_in_reaction_seconds", "unknown_cause"): 1}
