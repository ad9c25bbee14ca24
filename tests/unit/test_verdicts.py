"""Each request is judged once, at its end, by what its events said; checked by a slow judge."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feed import WORK, Feed
from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import (
    HookRegistry,
    ReplicaJoined,
    RequestArrived,
    RequestFinished,
    RequestJudged,
    StreamFinished,
    hookimpl,
)
from vllm_omni_metrics_plugin.objectives import Objective, ObjectivesListener, listener, with_bounds
from vllm_omni_metrics_plugin.objectives.values import PER_REQUEST
from vllm_omni_metrics_plugin.requests import OpenRequests
from vllm_omni_metrics_plugin.requests.end import tell
from vllm_omni_metrics_plugin.testing import EVENTS, Recorder, make_event

TTFP, RTF, LATENCY = 0.5, 1.0, 10.0
SPEECH = Objective(
    "speech",
    0.95,
    {"audio_ttfp_seconds": TTFP, "audio_rtf": RTF},
    modality="audio",
    streamed=True,
)

Listen = Callable[..., ObjectivesListener]


@pytest.fixture
def listen(registry: HookRegistry, recorder: Recorder, feed: Feed) -> Listen:
    """Has requests judged by these objectives."""

    def start(*objectives: Objective) -> ObjectivesListener:
        judging = ObjectivesListener(objectives)
        registry.register(judging, "objectives", timed=False)
        feed.judged_by = judging.judge
        return judging

    return start


def verdicts(recorder: Recorder, objective: str | None = None) -> list[str]:
    """In the order in which they came; those before are forgotten."""
    judged = recorder.of(RequestJudged)
    recorder.clear()
    return [event.verdict for event in judged if objective in (None, event.objective)]


# The table


class Row(NamedTuple):
    """What happened to one request for streamed speech; None is what was not measured."""

    outcome: str
    #: None: no packet came. -1.0: one did, and when is not known.
    first_packet: float | None
    rtf: float | None
    ending: str
    waited: float | None


OUTCOMES = ("stop", "length", "repetition", "abort", "error", "rejected")
TABLE = [
    Row(*values)
    for values in itertools.product(
        OUTCOMES,
        (None, -1.0, 0.3, TTFP, 0.7),
        (None, 0.8, RTF, 1.2),
        ("smooth", "left_playing", "left_stalled", "left_before_audio"),
        (None, 0.4, 4.0),
    )
]


def play(feed: Feed, row: Row, request_id: str = "a") -> None:
    """The events of a row's request, in the order in which a server has them."""
    feed.event(make_event(RequestArrived, request_id=request_id, modalities=("audio",)))
    feed.submit(request_id)
    whose = {"request_id": request_id}
    if row.first_packet is not None:
        since = None if row.first_packet < 0 else row.first_packet
        feed.packet(**whose, since_arrival_seconds=since)
        feed.packet(**whose, index=1, since_arrival_seconds=9.0)
    feed.finish_stream(**whose, ending=row.ending)
    if row.outcome not in ("abort", "error", "rejected"):
        generated = None if row.rtf is None else 2.0 * row.rtf
        feed.finish_audio(**whose, generation_seconds=generated, duration_seconds=2.0)
    feed.finish(request_id, row.outcome, seconds=row.waited)


def judged_slowly(row: Row) -> str:
    """The same by the words of the definition, one after the other."""
    natural = row.outcome in ("stop", "length", "repetition")
    first_packet_is_known = row.first_packet is not None and row.first_packet >= 0
    rtf_is_known = natural and row.rtf is not None
    if row.outcome == "error":
        return "bad"
    if first_packet_is_known and row.first_packet is not None and row.first_packet > TTFP:
        return "bad"
    if rtf_is_known and row.rtf is not None and row.rtf > RTF:
        return "bad"
    if natural:
        return "good" if first_packet_is_known and rtf_is_known else "unknown"
    if row.outcome == "rejected":
        return "excluded"
    assert row.outcome == "abort"
    if row.ending == "left_stalled":
        return "bad"
    no_packet = row.first_packet is None
    if no_packet and row.waited is not None and row.waited > TTFP:
        return "bad"
    return "excluded"


def test_each_row_of_the_table_has_the_verdict_of_the_slow_judge(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    judging = listen(SPEECH)
    assert len(TABLE) >= 200
    wrong = []
    seen: Counter[str] = Counter()
    for row in TABLE:
        play(feed, row)
        given = verdicts(recorder)
        seen.update(given)
        if given != [judged_slowly(row)]:
            wrong.append((row, given, judged_slowly(row)))
    assert wrong == []
    assert set(seen) == {"good", "bad", "excluded", "unknown"}
    assert len(judging) == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(
    ("stem", "sent"),
    [
        ("e2e_request_latency_seconds", {"seconds": 11.0}),
        ("request_queue_time_seconds", {"queue_seconds": 11.0}),
    ],
)
def test_times_of_a_request_that_was_cut_short_are_those_of_their_families(
    feed: Feed, listen: Listen, recorder: Recorder, outcome: str, stem: str, sent: dict[str, Any]
) -> None:
    listen(Objective("quick", 0.9, {stem: LATENCY}))
    feed.arrive()
    feed.submit()
    feed.start()
    feed.finish(outcome=outcome, **sent)
    [judged] = recorder.of(RequestJudged)
    is_latency = stem.startswith("e2e")
    expected = {
        "abort": ("bad", ("left_late",) if is_latency else (stem,)),
        "error": ("bad", ("error",) if is_latency else (stem, "error")),
        "rejected": ("excluded", ()),
    }.get(outcome, ("bad", (stem,)))
    assert (judged.verdict, judged.broken) == expected


def test_client_that_leaves_the_queue_too_late_was_kept_waiting(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    listen(Objective("quick", 0.9, {"request_queue_time_seconds": 1.0}))
    for seconds, started, verdict in (
        *((0.9, False, "excluded"), (1.0, False, "excluded"), (1.1, False, "bad")),
        (1.1, True, "excluded"),
    ):
        feed.arrive()
        if started:
            feed.start()
        feed.finish(outcome="abort", seconds=seconds, queue_seconds=None)
        assert verdicts(recorder) == [verdict], (seconds, started)


def test_packet_of_a_whole_answer_has_no_time_to_first_packet(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    listen(SPEECH)
    feed.event(make_event(RequestArrived, request_id="a", modalities=("audio",)))
    feed.packet(streamed=False, since_arrival_seconds=2 * TTFP)
    feed.finish(outcome="abort")
    assert verdicts(recorder) == ["excluded"]


# Values


#: For each family an event's change that makes its value 3, and the one of the request's end.
THREE: dict[str, tuple[str, dict[str, Any]]] = {
    "audio_ttfp_seconds": ("packet", {"since_arrival_seconds": 3.0}),
    "audio_duration_seconds": ("finish_audio", {"duration_seconds": 3.0}),
    "audio_rtf": ("finish_audio", {"duration_seconds": 2.0, "generation_seconds": 6.0}),
    "audio_underrun_seconds": ("finish_stream", {"underrun_seconds": 3.0}),
    "audio_longest_stall_seconds": ("finish_stream", {"players": "stalled for 3"}),
    "image_ttfp_seconds": ("finish_image", {"first_image_seconds": 3.0}),
    "image_generation_time_seconds": ("finish_image", {"generation_seconds": 3.0}),
    "image_pixels": ("finish_image", {"pixels": (1, 3, 2)}),
    "video_generation_time_seconds": ("finish_video", {"generation_seconds": 3.0}),
    "video_duration_seconds": ("finish_video", {"duration_seconds": 3.0}),
    "video_rtf": ("finish_video", {"duration_seconds": 2.0, "generation_seconds": 6.0}),
    **{
        f"diffusion_{part}_time_ms": ("finish_stage", {"diffusion": f"{part}_seconds"})
        for part in ("preprocess", "exec", "postprocess", "step")
    },
    "stage_generation_time_seconds": ("finish_stage", {"generation_seconds": 3.0}),
    "e2e_request_latency_seconds": ("finish", {"seconds": 3.0}),
    "request_queue_time_seconds": ("finish", {"queue_seconds": 3.0}),
}
_STALLED = make_event(StreamFinished).players[0]


def changes_of(stem: str) -> dict[str, Any]:
    changes = dict(THREE[stem][1])
    if "players" in changes:
        changes["players"] = tuple(
            type(_STALLED)(
                buffer_seconds=buffer,
                stalls=1,
                stall_seconds=seconds,
                longest_stall_seconds=seconds,
                first_stall_at_seconds=1.0,
                played_seconds=2.0,
            )
            for buffer, seconds in ((0.0, 3.0), (0.2, 99.0))
        )
    if "diffusion" in changes:
        timings = {f: getattr(WORK, f) for f in WORK.__struct_fields__}
        changes["diffusion"] = type(WORK)(**timings | {changes["diffusion"]: 0.003})
    return changes


@pytest.mark.parametrize("stem", PER_REQUEST)
@pytest.mark.parametrize(("limit", "verdict"), [(3.0, "good"), (2.9, "bad"), (3.1, "good")])
def test_value_of_each_family_is_compared_with_its_limit(
    feed: Feed, listen: Listen, recorder: Recorder, stem: str, limit: float, verdict: str
) -> None:
    judging = listen(Objective("one", 0.9, {stem: limit}))
    assert PER_REQUEST[stem].event is EVENTS[catalog.BY_STEM[stem].event]
    call, changes = THREE[stem][0], changes_of(stem)
    feed.arrive()
    if call != "finish":
        getattr(feed, call)(**changes)
        changes = {}
    feed.finish(**changes)
    assert verdicts(recorder) == [verdict]
    assert len(judging) == 0


@pytest.mark.parametrize("stem", PER_REQUEST)
def test_value_that_was_not_measured_is_never_good(
    feed: Feed, listen: Listen, recorder: Recorder, stem: str
) -> None:
    listen(Objective("one", 0.9, {stem: 1000.0}))
    feed.arrive()
    feed.finish(seconds=None, queue_seconds=None)
    assert verdicts(recorder) == ["unknown"]


def test_value_of_a_request_is_the_largest_of_its_stages(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    listen(Objective("one", 0.9, {"stage_generation_time_seconds": 2.0}))
    for first, second, verdict in ((1.0, 2.0, "good"), (3.0, 1.0, "bad"), (1.0, 3.0, "bad")):
        feed.arrive()
        feed.finish_stage(stage=0, generation_seconds=first)
        feed.finish_stage(stage=1, generation_seconds=second)
        feed.finish()
        assert verdicts(recorder) == [verdict]


# Who is judged


def ask(
    feed: Feed, *modalities: str, stage: int | None = 1, streams: bool = False, **end: Any
) -> None:
    """A request for ``modalities``, given to ``stage``; ``end`` is that of the request."""
    feed.event(make_event(RequestArrived, request_id="a", modalities=modalities))
    if stage is not None:
        feed.submit(stage=stage)
    if streams:
        feed.finish_stream(ending="smooth")
    feed.finish(**end)


def about(name: str, **match: Any) -> Objective:
    return Objective(name, 0.9, {"e2e_request_latency_seconds": 5.0}, **match)


MATCHES = (
    about("all"),
    about("audio", modality="audio"),
    about("image", modality="image"),
    about("streamed", streamed=True),
    about("whole", streamed=False),
    about("tiny", models=frozenset({"tiny", "small"})),
    about("large", models=frozenset({"large"})),
)


@pytest.mark.parametrize(
    ("request_is", "judged_by"),
    [
        ({"modalities": ("audio",), "streams": True}, "all audio streamed tiny"),
        ({"modalities": ("audio",)}, "all audio whole tiny"),
        ({"modalities": ("text", "audio")}, "all audio whole tiny"),
        ({"modalities": ("text",), "stage": 0}, "all whole tiny"),
        ({"modalities": ("image",), "stage": 0}, "all image whole tiny"),
        ({"modalities": (), "streams": True}, "all audio streamed tiny"),
        ({"modalities": (), "stage": 0}, "all audio image whole tiny"),
        # Cut short before anybody knew whether it would have been streamed.
        ({"modalities": ("audio",), "stage": None, "outcome": "error"}, "all audio streamed whole"),
        ({"modalities": ("audio",), "stage": 0, "outcome": "abort"}, "all audio streamed whole"),
        ({"modalities": ("audio",), "stage": 1, "outcome": "error"}, "all audio whole"),
        ({"modalities": ("audio",), "streams": True, "outcome": "error"}, "all audio streamed"),
    ],
    ids=str,
)
def test_request_is_judged_by_the_objectives_that_are_about_it(
    feed: Feed, listen: Listen, recorder: Recorder, request_is: dict[str, Any], judged_by: str
) -> None:
    listen(*MATCHES)
    feed.event(make_event(ReplicaJoined, model_name="tiny", stage=0, makes=("text",)))
    feed.event(make_event(ReplicaJoined, model_name="tiny", stage=1, makes=("audio",)))
    ask(feed, *request_is.pop("modalities"), **request_is)
    names = [event.objective for event in recorder.of(RequestJudged)]
    assert names == [name for name in names if name in {*judged_by.split(), "tiny"}]
    assert set(names) == {*judged_by.split(), "tiny"}


def test_picture_and_film_say_what_was_asked_for_where_the_engine_does_not(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    listen(*MATCHES)
    for finish, judged in ((feed.finish_image, ["good"]), (feed.finish_video, [])):
        feed.event(make_event(RequestArrived, request_id="a", modalities=()))
        finish()
        feed.finish()
        assert verdicts(recorder, "image") == judged


@pytest.mark.parametrize("outcome", ["stop", "error"])
def test_request_whose_stream_is_told_after_it_is_about_streams_all_the_same(
    feed: Feed, listen: Listen, recorder: Recorder, outcome: str
) -> None:
    """As of a sentence on a websocket."""
    listen(Objective("smooth", 0.9, {"audio_underrun_seconds": 1.0}, "audio", streamed=True))
    feed.event(make_event(ReplicaJoined, model_name="tiny", stage=1, makes=("audio",)))
    feed.arrive()
    feed.submit(stage=1)
    feed.packet(streamed=True)
    if outcome == "stop":
        feed.finish_audio(streamed=True)
    feed.finish(outcome=outcome)
    assert verdicts(recorder) == ["unknown" if outcome == "stop" else "bad"]


# Once, and nothing left behind

#: They are kept for those who come later, and say nothing of requests.
KEPT = {"omni_configured", "omni_patch_reported"}


def test_request_whose_events_are_lost_is_judged_all_the_same(
    feed: Feed, listen: Listen, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MOST_OPEN", 1)
    judging = listen(SPEECH)
    feed.arrive("first")
    feed.arrive("second")
    assert len(judging) == 1
    feed.packet(request_id="second")
    feed.finish_audio(request_id="second")
    feed.finish("second")
    assert verdicts(recorder) == ["unknown"]
    feed.finish("never arrived", "error")
    assert verdicts(recorder) == ["bad"]
    feed.finish("first", "rejected")
    assert verdicts(recorder) == ["excluded"]
    assert len(judging) == 0


def test_late_events_of_a_request_that_has_ended_leave_nothing_behind(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    limits = dict.fromkeys(PER_REQUEST, 1.0)
    judging = listen(Objective("all", 0.9, limits))
    play(feed, TABLE[0])
    assert len(verdicts(recorder)) == 1
    feed.packet()
    feed.finish_stream()
    feed.finish_audio()
    feed.finish_image()
    feed.finish_video()
    feed.finish_stage()
    feed.submit()
    assert len(judging) == 0
    assert verdicts(recorder) == []


@given(st.lists(st.tuples(st.sampled_from(sorted({*EVENTS} - KEPT)), st.sampled_from("abc"))))
def test_each_request_is_judged_once_in_any_order_of_events(
    told: list[tuple[str, str]],
) -> None:
    registry, recorder = HookRegistry(), Recorder()
    registry.register(recorder, "recorder")
    every = Objective("every", 0.9, dict.fromkeys(PER_REQUEST, 1.0))
    judging = ObjectivesListener((about("all"), every))
    registry.register(judging, "objectives", timed=False)
    open_requests: set[str] = set()
    ended = 0
    for hook, request_id in told:
        if hook == "omni_request_arrived":
            open_requests.add(request_id)
        elif hook == "omni_request_finished":
            open_requests.discard(request_id)
            ended += 1
        event = EVENTS[hook]
        fields = {"request_id": request_id} if "request_id" in event.__struct_fields__ else {}
        fired = make_event(event, **fields)
        if isinstance(fired, RequestFinished):
            tell(registry.hooks, judging.judge, (), fired)
        else:
            getattr(registry.hooks, hook)(fired)
    assert len(verdicts(recorder, "all")) == ended
    assert len(judging) == len(open_requests)


def test_packets_are_listened_to_only_for_a_limit_of_the_first(
    registry: HookRegistry, feed: Feed
) -> None:
    for number, objective in enumerate((about("all"), SPEECH)):
        judging = ObjectivesListener([objective])
        registry.register(judging, f"judge {number}")
        assert len(registry.hooks.omni_media_packet.listeners) == number


# On /metrics


@pytest.fixture
def judged(
    expose: Any, registry: HookRegistry, listen: Listen
) -> Iterator[Callable[[str, str], dict[str, float]]]:
    """A server with one objective; says what of it is counted, zeros left out."""
    with expose(objectives=(SPEECH,)) as exposed:
        listen(SPEECH)
        exposed.join(makes=("audio",))

        def counted(family: str, label: str) -> dict[str, float]:
            return {
                sample.labels[label]: sample.value
                for metric in exposed.registry.collect()
                for sample in metric.samples
                if sample.name == f"{catalog.PREFIX}{family}"
                and sample.labels.get("objective", "speech") == "speech"
                and sample.value
            }

        yield counted


def test_counts_of_the_whole_table_are_the_slow_judges(
    feed: Feed, judged: Callable[[str, str], dict[str, float]]
) -> None:
    for row in TABLE:
        play(feed, row)
    assert judged("slo_requests_total", "verdict") == Counter(map(judged_slowly, TABLE))
    assert sum(judged("slo_requests_total", "verdict").values()) == len(TABLE)
    assert judged("slo_target_ratio", "objective") == {"speech": 0.95}
    broken = judged("slo_violations_total", "limit")
    assert broken["error"] == sum(row.outcome == "error" for row in TABLE)
    aborts = [row for row in TABLE if row.outcome == "abort"]
    assert broken["left_stalled"] == sum(row.ending == "left_stalled" for row in aborts)
    assert broken["left_late"] == sum(
        row.first_packet is None and (row.waited or 0) > TTFP for row in aborts
    )


def test_violations_of_a_limit_are_the_samples_beyond_its_bucket(
    feed: Feed, expose: Any, listen: Listen
) -> None:
    odd = Objective("odd", 0.9, {"audio_ttfp_seconds": 0.51, "audio_rtf": 0.97})
    with expose(with_bounds({"audio_rtf": (0.5, 2.0)}, [odd]), objectives=(odd,)) as exposed:
        listen(odd)
        exposed.join(makes=("audio",))
        for row in TABLE:
            if row.first_packet != -1.0:
                play(feed, row)
        for stem, bound in (("audio_ttfp_seconds", "0.51"), ("audio_rtf", "0.97")):
            whose = {"model_name": "tiny", "stage": "1", "replica": "3"}
            beyond = exposed.value(f"{stem}_count", **whose) - exposed.value(
                f"{stem}_bucket", **whose, le=bound
            )
            assert beyond > 0
            assert beyond == exposed.value(
                "slo_violations_total", model_name="tiny", objective="odd", limit=stem
            )
        assert exposed.value("audio_rtf_bucket", **whose, le="0.5") is not None
        assert exposed.value("audio_rtf_bucket", **whose, le="1.0") is None


def test_verdicts_stand_at_0_for_the_models_that_an_objective_is_about(expose: Any) -> None:
    with expose(objectives=(about("tiny", models=frozenset({"tiny"})),)) as exposed:
        exposed.join(model_name="tiny")
        exposed.join(model_name="other")
        for model_name, value in (("tiny", 0.0), ("other", None)):
            whose = {"model_name": model_name, "objective": "tiny"}
            for verdict in ("good", "bad", "excluded", "unknown"):
                assert exposed.value("slo_requests_total", **whose, verdict=verdict) == value
            for limit in ("e2e_request_latency_seconds", "error", "left_stalled", "left_late"):
                assert exposed.value("slo_violations_total", **whose, limit=limit) == value
        assert exposed.value("slo_target_ratio", objective="tiny") == 0.9


def test_verdicts_are_told_before_the_end_of_their_request_which_has_them(
    feed: Feed, listen: Listen, recorder: Recorder
) -> None:
    listen(about("quick"), about("slow"), about("other", models=frozenset({"other"})))
    feed.arrive()
    feed.finish(seconds=6.0)
    *judged, finished = recorder.events[-3:]
    assert [type(event) for event in judged] == [RequestJudged] * 2
    assert isinstance(finished, RequestFinished)
    assert finished.verdicts == tuple(judged)
    assert [(v.objective, v.verdict) for v in finished.verdicts] == [
        ("quick", "bad"),
        ("slow", "bad"),
    ]


def test_request_is_told_to_have_ended_whatever_its_judge_raises(
    feed: Feed, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def judge(event: RequestFinished) -> list[RequestJudged]:
        raise ZeroDivisionError("by a limit")

    feed.judged_by = judge
    feed.arrive()
    feed.finish()
    assert recorder.only(RequestFinished).verdicts == ()
    assert "judging a request" in caplog.text


def test_request_is_judged_for_whoever_hears_of_verdicts_alone(registry: HookRegistry) -> None:
    judged: list[RequestJudged] = []

    class Verdicts:
        @hookimpl
        def omni_request_judged(self, event: RequestJudged) -> None:
            judged.append(event)

    registry.register(Verdicts())
    judging = ObjectivesListener([about("all")])
    registry.register(judging, "objectives", timed=False)
    requests = OpenRequests(registry.hooks)
    requests.judge = judging.judge
    requests.begin("a", "a", "tiny", 0.0).end(GeneratorExit())
    assert [verdict.objective for verdict in judged] == ["all"]
    assert len(judging) == 0


def test_request_is_judged_for_whoever_hears_of_its_end_alone(
    registry: HookRegistry, feed: Feed
) -> None:
    judging = ObjectivesListener([about("all")])
    registry.register(judging, "objectives", timed=False)
    feed.judged_by = judging.judge
    ended: list[RequestFinished] = []

    class Ends:
        @hookimpl
        def omni_request_finished(self, event: RequestFinished) -> None:
            ended.append(event)

    registry.register(Ends())
    feed.arrive()
    feed.finish()
    assert [verdict.objective for verdict in ended[0].verdicts] == ["all"]


def test_built_in_listener_is_no_news_while_it_works(
    feed: Feed, hooks: Any, expose: Any, listen: Listen
) -> None:
    def shown(exposed: Any) -> set[str]:
        return {
            sample.labels["hook"]
            for metric in exposed.registry.collect()
            for sample in metric.samples
            if sample.labels.get("plugin") == "objectives"
        }

    with expose(objectives=(SPEECH,)) as exposed:
        judging = listen(SPEECH)
        exposed.join(makes=("audio",))
        play(feed, TABLE[0])
        assert shown(exposed) == set()
        feed.event(make_event(RequestArrived, request_id="b"))
        judging._open["b"].values = None  # type: ignore[assignment]
        feed.packet(request_id="b")
        assert shown(exposed) == {"omni_media_packet"}
