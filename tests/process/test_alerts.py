"""The alerts as Prometheus decides them, over series that are made for each of them.

In each story everything is as usual for a while, then it goes wrong or nearly does. Every alert
fires and ends, is right over the restart of a server, and is silent just under its limit and where
series are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from testbed import prometheus
from tests.operators_kit import RULES, Promtool, alerts
from vllm_omni_metrics_plugin.kit.alerts import EXCUSED

TARGET = {"job": "vllm-omni", "instance": "a:8000"}
MODEL = {"model_name": "m"}
REPLICA = {**MODEL, "stage": "1", "replica": "0"}
EDGE = {
    **MODEL,
    "from_stage": "0",
    "from_replica": "0",
    "to_stage": "1",
    "to_replica": "0",
}
JUDGED = {**MODEL, "objective": "o"}

Level = Literal["wrong", "under"]


class Line(NamedTuple):
    """One series: a gauge's values, or how much a counter grows each minute; None where it is not.

    As usual, when something is wrong, and when it nearly is.
    """

    name: str
    labels: dict[str, str]
    usual: float | None
    wrong: float | None
    under: float | None

    @property
    def grows(self) -> bool:
        return self.name.endswith(("_total", "_bucket"))


def line(
    stem: str,
    labels: dict[str, str],
    usual: float | None,
    wrong: float | None,
    under: float | None = None,
) -> Line:
    name = stem if ":" in stem or stem == "up" else f"vllm:omni_{stem}"
    return Line(name, labels, usual, wrong, usual if under is None else under)


@dataclass(frozen=True)
class Story:
    """What an alert is about; times are minutes after it goes wrong."""

    lines: tuple[Line, ...]
    #: By then it fires, and after the end of what is wrong it is silent after ``ends``.
    fires: int
    ends: int
    #: Until then it is silent: windows and ``for`` are not over.
    early: int = 0
    #: As long as it takes until the longest window knows only what is nearly wrong.
    under: int = 90
    #: Minutes for which everything is as usual: more than the longest window.
    before: int = 65
    #: Families without which it goes on firing, as they are one of two.
    spare: frozenset[str] = field(default_factory=frozenset)


UP = line("up", {}, 1, 1)
STORIES: dict[str, Story] = {
    "OmniObjectiveBurnsFast": Story(
        (
            line("slo_target_ratio", {"objective": "o"}, 0.99, 0.99),
            line("slo_requests_total", {**JUDGED, "verdict": "good"}, 100, 70, 86),
            line("slo_requests_total", {**JUDGED, "verdict": "bad"}, 0, 30, 14),
            line("slo_requests_total", {**JUDGED, "verdict": "excluded"}, 300, 300),
        ),
        fires=40,
        early=29,
        ends=10,
    ),
    "OmniObjectiveBurnsSlowly": Story(
        (
            line("slo_target_ratio", {"objective": "o"}, 0.99, 0.99),
            line("slo_requests_total", {**JUDGED, "verdict": "good"}, 100, 80, 94.1),
            line("slo_requests_total", {**JUDGED, "verdict": "bad"}, 0, 20, 5.9),
        ),
        fires=150,
        early=121,
        ends=45,
        under=480,
        before=365,
    ),
    "OmniSpeechStalls": Story(
        (
            line("audio_played_seconds_total", {**REPLICA, "player": "0.2"}, 60, 60),
            line("audio_stall_seconds_total", {**REPLICA, "player": "0.2"}, 0, 1.8, 1.19),
        ),
        fires=20,
        early=10,
        ends=12,
    ),
    "OmniRequestsFail": Story(
        (
            line("requests_success_total", {**MODEL, "finished_reason": "stop"}, 10, 10),
            line("requests_success_total", {**MODEL, "finished_reason": "error"}, 0, 1, 0.52),
            line("requests_success_total", {**MODEL, "finished_reason": "rejected"}, 0, 900, 900),
        ),
        fires=10,
        ends=12,
    ),
    "OmniReplicaGone": Story(
        (
            UP,
            line("stage_info", {**REPLICA, "stage_name": "v", "stage_type": "llm"}, 1, None),
            line(
                "stage_info",
                {**REPLICA, "replica": "1", "stage_name": "v", "stage_type": "llm"},
                1,
                1,
            ),
        ),
        fires=5,
        early=1,
        ends=2,
    ),
    "OmniNothingFinishes": Story(
        (
            line("num_requests_running", MODEL, 3, 2),
            line("num_requests_waiting", MODEL, 1, 0),
            line("requests_success_total", {**MODEL, "finished_reason": "stop"}, 5, 0, 0.1),
        ),
        fires=25,
        early=18,
        ends=2,
    ),
    "OmniBacklog": Story((line("backlog_seconds", MODEL, 1, 61, 60),), fires=7, early=5, ends=2),
    "OmniTransferStuck": Story(
        (
            line("transfer_in_flight_time_ms_bucket", {**EDGE, "le": "500"}, 10, 0, 0),
            line("transfer_in_flight_time_ms_bucket", {**EDGE, "le": "1000"}, 10, 8, 9.1),
            line("transfer_in_flight_time_ms_bucket", {**EDGE, "le": "2500"}, 10, 10),
            line("transfer_in_flight_time_ms_bucket", {**EDGE, "le": "+Inf"}, 10, 10),
        ),
        fires=20,
        early=8,
        ends=15,
    ),
    "OmniTransferLost": Story(
        (
            UP,
            line(
                "transfer_failures_total",
                {
                    **MODEL,
                    "from_stage": "0",
                    "to_stage": "1",
                    "operation": "send",
                    "replica": "0",
                    "reason": "refused",
                },
                0,
                1,
            ),
        ),
        fires=2,
        ends=12,
        spare=frozenset({"up"}),
    ),
    "OmniUnmeasured": Story(
        (
            line("metrics_events_total", {"hook": "omni_request_finished"}, 100, 100),
            line("metrics_events_total", {"hook": "omni_media_packet"}, 9000, 9000),
            line(
                "metrics_missing_samples_total",
                {"family": "vllm:omni_audio_rtf", "reason": "no_sample_rate"},
                0,
                10,
                4.9,
            ),
            *(
                line(
                    "metrics_missing_samples_total",
                    {"family": "vllm:omni_audio_rtf", "reason": reason},
                    50,
                    50,
                )
                for reason in EXCUSED
            ),
        ),
        fires=60,
        early=43,
        ends=60,
    ),
    "OmniHookFails": Story(
        (
            UP,
            line("metrics_hook_errors_total", {"plugin": "p", "hook": "h"}, 0, 1),
            line("metrics_hook_dropped_events_total", {"plugin": "p", "hook": "h"}, 0, 1),
        ),
        fires=2,
        ends=17,
        spare=frozenset(
            {
                "up",
                "vllm:omni_metrics_hook_errors_total",
                "vllm:omni_metrics_hook_dropped_events_total",
            }
        ),
    ),
    "OmniMetricsNotListening": Story(
        (
            line("metrics_dropped_events_total", {"reason": "not_listening"}, 0, 1),
            line("metrics_dropped_events_total", {"reason": "lost"}, 9, 9),
        ),
        fires=2,
        ends=17,
    ),
    "OmniCacheFull": Story(
        (line("vllm:kv_cache_usage_perc", REPLICA, 0.5, 0.96, 0.95),), fires=7, early=5, ends=2
    ),
}


def told(
    story: Story,
    level: Level,
    minutes: int,
    *,
    until: int | None = None,
    restart: int | None = None,
) -> list[dict[str, str]]:
    """The series of ``minutes`` after the beginning of what is wrong, which ends with ``until``.

    With ``restart`` all counters begin anew in that minute.
    """
    return [
        {
            "series": f"{each.name}{{{_inside({**TARGET, **each.labels})}}}",
            "values": " ".join(
                _values(each, level, range(-story.before, minutes + 1), until, restart)
            ),
        }
        for each in story.lines
    ]


def _inside(labels: dict[str, str]) -> str:
    return ",".join(f'{label}="{value}"' for label, value in labels.items())


def _values(
    each: Line, level: Level, minutes: range, until: int | None, restart: int | None
) -> Iterator[str]:
    count = 0.0
    was_there = True
    for minute in minutes:
        is_usual = minute <= 0 or (until is not None and minute > until)
        value = each.usual if is_usual else each.wrong if level == "wrong" else each.under
        if value is None:
            yield "stale" if was_there else "_"
        elif each.grows:
            count = 0.0 if minute == restart else count + value
            yield f"{count:.6g}" if count < 1e5 else f"{count:.12g}"
        else:
            yield f"{value:g}"
        was_there = value is not None


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    try:
        return Promtool(tmp_path)
    except prometheus.UnavailableError as reason:
        pytest.skip(str(reason))


def group(
    name: str, story: Story, series: list[dict[str, str]], states: dict[int, int]
) -> dict[str, Any]:
    """How many alerts of this name fire, by the minute after the beginning of what is wrong."""
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    asked = [
        {
            "expr": firing,
            "eval_time": f"{story.before + minute}m",
            "exp_samples": [{"labels": "{}", "value": how_many}],
        }
        for minute, how_many in states.items()
    ]
    return {"interval": "1m", "input_series": series, "promql_expr_test": asked}


def silent(story: Story) -> dict[int, int]:
    return dict.fromkeys(range(1, story.under, 7), 0)


def without(story: Story, *families: str) -> Story:
    return replace(story, lines=tuple(each for each in story.lines if each.name not in families))


STORY = pytest.mark.parametrize("name", STORIES)


def test_every_alert_has_a_story() -> None:
    assert set(STORIES) == set(alerts())


def test_rules_are_what_prometheus_accepts(promtool: Promtool) -> None:
    promtool.run("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


def test_configuration_is_what_prometheus_accepts(promtool: Promtool) -> None:
    promtool.run("check", "config", str(RULES[0].parent / "prometheus.yml"))


@STORY
def test_alert_fires_and_is_silent_before(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    series = told(story, "wrong", story.fires + 10)
    promtool.test(
        group(name, story, series, {-20: 0, story.early: 0, story.fires: 1, story.fires + 10: 1})
    )


@STORY
def test_alert_is_silent_just_under_its_limit(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    series = told(story, "under", story.under)
    promtool.test(group(name, story, series, silent(story)))


@STORY
def test_alert_ends(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    after = story.fires + story.ends
    series = told(story, "wrong", after + 30, until=story.fires)
    promtool.test(group(name, story, series, {story.fires: 1, after: 0, after + 30: 0}))


@STORY
def test_alert_is_right_although_the_server_restarts(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    wrong = told(story, "wrong", story.fires + 10, restart=max(1, story.fires - 1))
    under = told(story, "under", story.under, restart=story.under // 2)
    promtool.test(
        group(name, story, wrong, {story.fires + 5: 1, story.fires + 10: 1}),
        group(name, story, under, silent(story)),
    )


@STORY
def test_alert_is_silent_without_series(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    promtool.test(
        *(
            group(
                name, story, told(without(story, *families), "wrong", story.fires), {story.fires: 0}
            )
            for families in (
                [each.name for each in story.lines],
                *([family] for family in {each.name for each in story.lines} - story.spare),
            )
        )
    )


@pytest.mark.parametrize(
    "name",
    [
        "OmniObjectiveBurnsFast",
        "OmniRequestsFail",
        "OmniTransferLost",
        "OmniHookFails",
        "OmniMetricsNotListening",
    ],
)
def test_first_failure_on_a_quiet_model_fires(promtool: Promtool, name: str) -> None:
    """Nothing happened before, and nothing does after it."""
    story = STORIES[name]
    quiet = [
        each._replace(usual=0, wrong=1 if each.usual == 0 and each.wrong else 0)
        if each.grows
        else each
        for each in story.lines
        if each.labels.get("finished_reason") != "rejected"
    ]
    once = told(replace(story, lines=tuple(quiet)), "wrong", 30, until=1)
    promtool.test(group(name, story, once, {0: 0, 4: 1, 30: 0}))


@pytest.mark.parametrize("name", ["OmniTransferLost", "OmniHookFails"])
def test_series_that_is_born_with_a_failure_fires(promtool: Promtool, name: str) -> None:
    story = STORIES[name]
    born = [
        {**each, "values": "_ " * (story.before + 1) + "1 " * 31}
        if "up{" not in each["series"]
        else each
        for each in told(story, "wrong", 30)
    ]
    promtool.test(group(name, story, born, {0: 0, 3: 1, 30: 0}))


def test_server_that_is_scraped_for_the_first_time_does_not_fire_for_what_was(
    promtool: Promtool,
) -> None:
    name = "OmniTransferLost"
    story = STORIES[name]
    new = [
        {
            **each,
            "values": "_ " * (story.before + 1) + ("1 " if "up{" in each["series"] else "7 ") * 30,
        }
        for each in told(story, "wrong", 30)
    ]
    promtool.test(group(name, story, new, dict.fromkeys(range(1, 29, 3), 0)))


def test_replica_that_is_back_within_the_minute_is_not_gone(promtool: Promtool) -> None:
    name = "OmniReplicaGone"
    story = STORIES[name]
    promtool.test(
        group(name, story, told(story, "wrong", 10, until=1), dict.fromkeys(range(10), 0))
    )


def test_server_that_is_away_as_a_whole_has_lost_no_replica(promtool: Promtool) -> None:
    name = "OmniReplicaGone"
    story = STORIES[name]
    away = [each._replace(wrong=0 if each.name == "up" else None) for each in story.lines]
    series = told(replace(story, lines=tuple(away)), "wrong", 20)
    promtool.test(group(name, story, series, {5: 0, 20: 0}))
