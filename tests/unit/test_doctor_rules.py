"""What the doctor makes of a server's /metrics, on pages that show one fault each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from prometheus_client import generate_latest

from tests.unit.feed import Feed
from vllm_omni_metrics_plugin import catalog, exporters
from vllm_omni_metrics_plugin.doctor.measures import Count, Measure
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES, TALLIES
from vllm_omni_metrics_plugin.doctor.traffic import judge
from vllm_omni_metrics_plugin.hooks import Event
from vllm_omni_metrics_plugin.hooks.events import Unheard
from vllm_omni_metrics_plugin.scrape import parse
from vllm_omni_metrics_plugin.testing import EVENTS, speech_request


class Added(NamedTuple):
    """What a page shows more of one family; of the engine's, if the name has a colon."""

    name: str
    amount: float
    labels: tuple[tuple[str, str], ...]


def added(name: str, amount: float = 1, **labels: str) -> Added:
    return Added(name, amount, tuple(labels.items()))


def calls(hook: str, times: int) -> Added:
    return added("metrics_events_total", times, hook=f"omni_{hook}")


def lacking(family: str, reason: str = "no_timing") -> Added:
    name = catalog.BY_STEM[family].name
    return added("metrics_missing_samples_total", family=name, reason=reason)


Judge = Callable[..., dict[str, Finding]]


@pytest.fixture
def found(metrics_page: Any) -> Judge:
    """What is found on a page with these additions, by the finding's name."""

    def found(*additions: Added) -> dict[str, Finding]:
        with metrics_page() as page:
            for name, amount, labels in additions:
                add = page.add_other if ":" in name else page.add
                add(name, amount, **dict(labels))
            return {finding.check: finding for finding in judge(page.scrape())}

    return found


COMPLETE = added("requests_success_total", 3, finished_reason="stop", model_name="m")
ABORTED = added("requests_success_total", finished_reason="abort", model_name="m")
LLM = added("stage_info", stage_name="t", stage_type="llm")
DIFFUSION = added("stage_info", stage_name="t", stage_type="diffusion")
AUDIO = added("audio_duration_seconds", 3)


#: For each rule a page that breaks it, and additions each of which alone mends it.
FAULTS: dict[str, tuple[list[Added], list[Added]]] = {
    "no_stage": ([COMPLETE], [LLM]),
    "no_latency": ([COMPLETE], [added("e2e_request_latency_seconds", 3)]),
    "no_queue_time": ([COMPLETE], [added("request_queue_time_seconds", 3)]),
    "no_first_packet": (
        [calls("media_packet", 9), calls("audio_finished", 3)],
        [
            added("audio_ttfp_seconds", 1),
            lacking("audio_ttfp_seconds", "empty_audio"),
            added("num_requests_running", 6),
        ],
    ),
    "nothing_streamed": (
        [AUDIO, calls("media_packet", 3), calls("audio_finished", 3)],
        [added("audio_ttfp_seconds", 1), calls("media_packet", 4)],
    ),
    "no_audio_duration": (
        [calls("audio_finished", 3)],
        [AUDIO, lacking("audio_duration_seconds", "no_sample_rate")],
    ),
    "audio_never_complete": (
        [added("audio_frames_total", 9)],
        [calls("audio_finished", 1), ABORTED, added("num_requests_running", 1)],
    ),
    "no_audio_frames": ([AUDIO], [added("audio_frames_total", 9), lacking("audio_frames_total")]),
    "no_audio_rtf": ([AUDIO], [added("audio_rtf", 3), lacking("audio_rtf")]),
    "no_images": (
        [calls("image_finished", 3)],
        [added("image_num_total", 3), lacking("image_num_total", "no_image")],
    ),
    "no_image_time": (
        [added("image_num_total", 3)],
        [
            added("image_generation_time_seconds", 3),
            lacking("image_generation_time_seconds", "no_generation_time"),
        ],
    ),
    "no_videos": (
        [calls("video_finished", 3)],
        [added("video_frames_total", 3), lacking("video_frames_total", "no_frames")],
    ),
    "no_video_duration": (
        [added("video_frames_total", 9)],
        [added("video_duration_seconds", 1), lacking("video_duration_seconds", "no_frame_rate")],
    ),
    "no_diffusion_time": (
        [calls("image_finished", 3), DIFFUSION],
        [added("diffusion_exec_time_ms", 3), lacking("diffusion_exec_time_ms")],
    ),
    "no_diffusion_steps": (
        [calls("video_finished", 3), DIFFUSION],
        [added("diffusion_steps_total", 9), lacking("diffusion_steps_total", "not_seen")],
    ),
    "no_engine_statistics": (
        [COMPLETE, LLM],
        [
            added("vllm:request_success_total", 3, finished_reason="stop", replica="0", stage="0"),
            added("vllm:generation_tokens_total", 3, replica="0", stage="0"),
        ],
    ),
    "engine_label": ([added("vllm:num_requests_running", 0, engine="0", model_name="m")], []),
    "native_placeholders": (
        [COMPLETE, added("vllm_omni:num_requests_running", 0, model_name="/path")],
        [
            added("vllm_omni:image_count_total", 2, model_name="m"),
            added("vllm_omni:num_requests_waiting", 1, model_name="m"),
        ],
    ),
    "no_transfers": (
        [COMPLETE, calls("stage_finished", 6), calls("request_finished", 3)],
        [
            added("transfer_size_bytes", 9),
            added("transfer_failures_total", 1),
            lacking("transfer_size_bytes", "never_received"),
            added("num_requests_running", 3),
        ],
    ),
    "no_receipts": (
        [added("transfer_size_bytes", 9)],
        [
            added("transfer_rx_decode_time_ms", 9),
            lacking("transfer_rx_decode_time_ms", "unknown_sender"),
        ],
    ),
}
#: What only makes a page one that a server could show.
BESIDE = {calls("audio_finished", 3), calls("media_packet", 3), calls("request_finished", 3)}


def test_every_rule_has_a_page_that_breaks_it() -> None:
    assert list(FAULTS) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_speaks_where_traffic_left_no_sample_and_only_there(rule: Any, found: Judge) -> None:
    lines, enough = FAULTS[rule.name]
    finding = found(*lines)[rule.name]
    assert finding.severity == rule.severity
    assert "{" not in finding.message
    for line in enough:
        assert rule.name not in found(*lines, line), line
    for line in {*lines} - BESIDE:
        fewer = [other for other in lines if other != line]
        assert rule.name not in found(*fewer), f"without {line}"
    assert rule.name not in found(), "nothing was asked of the server"


def fire(hooks: Any, *events: Event) -> None:
    for event in events:
        Feed(hooks).event(event)


def without_engine(text: str) -> list[str]:
    """What the doctor says of an exporter alone: no engine, whose families would be there too."""
    said = [finding.check for finding in judge(parse(text))]
    assert "no_engine_statistics" in said
    return [check for check in said if check not in ("no_engine_statistics", "no_transfers")]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("packets", [1, 3])
def test_speech_that_was_measured_is_all_good(exposed: Any, streamed: bool, packets: int) -> None:
    exposed.join()
    packets = packets if streamed else 1
    fire(exposed.hooks, *speech_request(streamed=streamed, packets=packets))
    fire(exposed.hooks, *speech_request("cut", outcome="abort", streamed=streamed, packets=packets))
    said = without_engine(generate_latest(exposed.registry).decode())
    assert said == ([] if streamed else ["nothing_streamed"])


def test_requests_under_way_are_not_taken_for_lost_ones(exposed: Any) -> None:
    exposed.join()
    story = speech_request(packets=1, streamed=False)
    for event in story:
        fire(exposed.hooks, event)
        checks = [
            f.check
            for f in judge(parse(generate_latest(exposed.registry).decode()))
            if f.severity != "note"
        ]
        assert set(checks) <= {"no_engine_statistics"}, event


def test_packets_that_left_without_a_time_are_found_by_their_calls(exposed: Any) -> None:
    exposed.join()
    story = speech_request(packets=3)
    # As if the engine had taken its first packet from where nobody looks.
    fire(exposed.hooks, *(event for event in story if getattr(event, "index", None) != 0))
    assert without_engine(generate_latest(exposed.registry).decode()) == ["no_first_packet"]


# Counters that have to stay at 0


@pytest.mark.parametrize(
    ("addition", "severity", "words"),
    [
        (
            added("metrics_hook_errors_total", 7, hook="omni_request_arrived", plugin="mine"),
            "degraded",
            ["mine", "7 times", "omni_request_arrived"],
        ),
        (
            added("metrics_hook_dropped_events_total", 9, hook="omni_media_packet", plugin="slow"),
            "degraded",
            ["slow", "lost 9"],
        ),
        (
            added(
                "metrics_held_series_total", 6, plugin="mine", family="mine_total", label="voice"
            ),
            "degraded",
            ["hook plugin mine", "mine_total", "label voice", "6 calls", "overflow"],
        ),
        (
            added("metrics_spans_dropped_total", 7, reason="export_failed"),
            "degraded",
            ["7 spans", "lost (export_failed)"],
        ),
        (
            added("metrics_internal_errors_total", 3, place="reading an output"),
            "degraded",
            ["3 internal errors", "in reading an output", "traceback"],
        ),
        (added("metrics_dropped_events_total", 5, reason="queue_full"), "degraded", ["5 events"]),
        (
            added("metrics_dropped_events_total", 5, reason="garbage"),
            "degraded",
            ["5 messages", "refused (garbage)"],
        ),
        (
            added("transfer_failures_total", 2, to_stage="1", operation="send", reason="refused"),
            "degraded",
            ["2 payloads", "stage 0 to stage 1", "send failed (refused)"],
        ),
        (
            added("requests_success_total", 4, finished_reason="error"),
            "note",
            ["4 requests of m failed"],
        ),
        (lacking("audio_rtf", "no_generation_time"), "degraded", ["audio_rtf lacks 1", "begin"]),
        (lacking("audio_rtf", "empty_audio"), "note", ["nothing in it"]),
        (lacking("audio_rtf", "made_up"), "degraded", ["made_up"]),
    ],
)
def test_what_was_lost_is_said_with_its_number(
    addition: Added, severity: str, words: list[str], found: Judge
) -> None:
    findings = [finding for check, finding in found(addition).items() if check != "no_stage"]
    assert [finding.severity for finding in findings] == [severity]
    assert all(word in findings[0].message for word in words), findings
    assert found(addition._replace(amount=0)) == {}


# The tables themselves


def counts(measures: tuple[Measure, ...]) -> Iterator[str]:
    yield from (measure.sample for measure in measures if isinstance(measure, Count))


def test_rules_are_about_families_of_the_catalogue() -> None:
    named = [f"{catalog.PREFIX}{tally.sample}" for tally in TALLIES]
    for rule in RULES:
        named += counts((*rule.traffic, *rule.beyond, *rule.also, *rule.lacks))
    families = {family.name for family in catalog.FAMILIES}
    for name in named:
        if name.startswith(catalog.PREFIX):
            assert name.removesuffix("_count") in families, name
    judged = set(catalog.BY_STEM["metrics_events_total"].known["hook"])
    assert judged <= set(EVENTS)
    for rule in RULES:
        for measure in (*rule.traffic, *rule.beyond, *rule.lacks):
            if isinstance(measure, Count):
                assert set(measure.where.get("hook", ())) <= judged, rule.name


def reasons(source: str) -> Iterator[str]:
    """The words that an exporter gives as a reason for a missing sample."""
    for node in ast.walk(ast.parse(source)):
        given: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "_missing":
                given = node.args[0]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "reason":
            given = node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("_why"):
            given = ast.Module([n for n in ast.walk(node) if isinstance(n, ast.Return)], [])
        for part in ast.walk(given) if given is not None else ():
            branches = [part.body, part.orelse] if isinstance(part, ast.IfExp) else [part]
            for branch in branches:
                if isinstance(branch, ast.Constant) and isinstance(branch.value, str):
                    yield branch.value


def test_every_reason_that_an_exporter_gives_is_explained() -> None:
    folder = Path(exporters.__file__).parent / "prometheus"
    given = {reason for path in folder.glob("*.py") for reason in reasons(path.read_text())}
    assert given | set(get_args(Unheard)) == set(REASONS)


def test_reasons_that_the_catalogue_gives_its_families_are_those_that_are_explained() -> None:
    assert {reason for family in catalog.FAMILIES for reason in family.missing} == set(REASONS)
