"""What the doctor makes of a server's /metrics, on texts that show one fault each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from vllm_omni_metrics_plugin import catalog, exporters
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES, TALLIES, Count, Measure
from vllm_omni_metrics_plugin.doctor.traffic import judge
from vllm_omni_metrics_plugin.hooks import Event
from vllm_omni_metrics_plugin.scrape import parse
from vllm_omni_metrics_plugin.testing import EVENTS, speech_request

HOOKS = {kind: name for name, kind in EVENTS.items()}


def metrics(*lines: str) -> str:
    """A text of /metrics; ``omni_`` stands for our prefix, ``told HOOK N`` for N calls of it."""
    text = ""
    for line in lines:
        line = re.sub(
            r"^told (\w+) (\d+)$",
            r'omni_metrics_hook_calls_total{hook="omni_\1",plugin="prometheus"} \2',
            line,
        )
        text += line.replace("omni_", catalog.PREFIX, 1) if line.startswith("omni_") else line
        text += "\n"
    return text


def found(*lines: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in judge(parse(metrics(*lines)))}


COMPLETE = 'omni_requests_success_total{finished_reason="stop",model_name="m"} 3'
ABORTED = 'omni_requests_success_total{finished_reason="abort",model_name="m"} 1'
LLM = 'omni_stage_info{model_name="m",replica="0",stage="0",stage_name="t",stage_type="llm"} 1'
DIFFUSION = LLM.replace('"llm"', '"diffusion"')
AUDIO = "omni_audio_duration_seconds_count 3"


def lacking(family: str, reason: str = "no_timing") -> str:
    return f'omni_metrics_missing_samples_total{{family="vllm:omni_{family}",reason="{reason}"}} 1'


#: For each rule a text that breaks it, and lines each of which alone would not.
FAULTS: dict[str, tuple[list[str], list[str]]] = {
    "no_stage": ([COMPLETE], [LLM]),
    "no_latency": ([COMPLETE], ["omni_e2e_request_latency_seconds_count 3"]),
    "no_queue_time": ([COMPLETE], ["omni_request_queue_time_seconds_count 3"]),
    "no_first_packet": (
        ["told media_packet 9", "told audio_finished 3"],
        [
            "omni_audio_ttfp_seconds_count 1",
            lacking("audio_ttfp_seconds", "empty_audio"),
            "omni_num_requests_running 6",
        ],
    ),
    "nothing_streamed": (
        [AUDIO, "told media_packet 3", "told audio_finished 3"],
        ["omni_audio_ttfp_seconds_count 1", "told media_packet 4"],
    ),
    "no_audio_duration": (
        ["told audio_finished 3"],
        [AUDIO, lacking("audio_duration_seconds", "no_sample_rate")],
    ),
    "audio_never_complete": (
        ["omni_audio_frames_total 9"],
        ["told audio_finished 1", ABORTED, "omni_num_requests_running 1"],
    ),
    "no_audio_frames": ([AUDIO], ["omni_audio_frames_total 9", lacking("audio_frames_total")]),
    "no_audio_rtf": ([AUDIO], ["omni_audio_rtf_count 3", lacking("audio_rtf")]),
    "no_images": (
        ["told image_finished 3"],
        ["omni_image_num_total 3", lacking("image_num_total", "no_image")],
    ),
    "no_image_time": (
        ["omni_image_num_total 3"],
        [
            "omni_image_generation_time_seconds_count 3",
            lacking("image_generation_time_seconds", "no_generation_time"),
        ],
    ),
    "no_videos": (
        ["told video_finished 3"],
        ["omni_video_frames_total 3", lacking("video_frames_total", "no_frames")],
    ),
    "no_video_duration": (
        ["omni_video_frames_total 9"],
        ["omni_video_duration_seconds_count 1", lacking("video_duration_seconds", "no_frame_rate")],
    ),
    "no_diffusion_time": (
        ["told image_finished 3", DIFFUSION],
        ["omni_diffusion_exec_time_ms_count 3", lacking("diffusion_exec_time_ms")],
    ),
    "no_diffusion_steps": (
        ["told video_finished 3", DIFFUSION],
        ["omni_diffusion_steps_total 9", lacking("diffusion_steps_total", "not_seen")],
    ),
    "no_engine_statistics": (
        [COMPLETE, LLM],
        [
            'vllm:request_success_total{finished_reason="stop",replica="0",stage="0"} 3',
            'vllm:generation_tokens_total{replica="0",stage="0"} 3',
        ],
    ),
    "engine_label": (['vllm:num_requests_running{engine="0",model_name="m"} 0'], []),
    "no_transfers": (
        [COMPLETE, "told stage_finished 6", "told request_finished 3"],
        [
            "omni_transfer_size_bytes_count 9",
            "omni_transfer_failures_total 1",
            lacking("transfer_size_bytes", "never_received"),
            "omni_num_requests_running 3",
        ],
    ),
    "no_receipts": (
        ["omni_transfer_size_bytes_count 9"],
        [
            "omni_transfer_rx_decode_time_ms_count 9",
            lacking("transfer_rx_decode_time_ms", "unknown_sender"),
        ],
    ),
}
#: Lines that only make a text one that a server could show.
BESIDE = {"told audio_finished 3", "told media_packet 3", "told request_finished 3"}


def test_every_rule_has_a_text_that_breaks_it() -> None:
    assert list(FAULTS) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_speaks_where_traffic_left_no_sample_and_only_there(rule: Any) -> None:
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


def told(hooks: Any, *events: Event) -> None:
    for event in events:
        getattr(hooks, HOOKS[type(event)])(event)


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
    told(exposed.hooks, *speech_request(streamed=streamed, packets=packets))
    told(exposed.hooks, *speech_request("cut", outcome="abort", streamed=streamed, packets=packets))
    said = without_engine(generate_latest(exposed.registry).decode())
    assert said == ([] if streamed else ["nothing_streamed"])


def test_requests_under_way_are_not_taken_for_lost_ones(exposed: Any) -> None:
    exposed.join()
    story = speech_request(packets=1, streamed=False)
    for event in story:
        told(exposed.hooks, event)
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
    told(exposed.hooks, *(event for event in story if getattr(event, "index", None) != 0))
    assert without_engine(generate_latest(exposed.registry).decode()) == ["no_first_packet"]


# Counters that have to stay at 0


@pytest.mark.parametrize(
    ("line", "severity", "words"),
    [
        (
            'omni_metrics_hook_errors_total{hook="omni_request_arrived",plugin="mine"} 7',
            "degraded",
            ["mine", "7 times", "omni_request_arrived"],
        ),
        (
            'omni_metrics_hook_dropped_events_total{hook="omni_media_packet",plugin="slow"} 9',
            "degraded",
            ["slow", "lost 9"],
        ),
        ('omni_metrics_dropped_events_total{reason="queue_full"} 5', "degraded", ["5 events"]),
        (
            'omni_metrics_dropped_events_total{reason="garbage"} 5',
            "degraded",
            ["5 messages", "refused (garbage)"],
        ),
        (
            'omni_transfer_failures_total{model_name="m",from_stage="0",to_stage="1",'
            'operation="send",replica="0",reason="refused"} 2',
            "degraded",
            ["2 payloads", "stage 0 to stage 1", "send failed (refused)"],
        ),
        (
            'omni_requests_success_total{finished_reason="error",model_name="m"} 4',
            "note",
            ["4 requests of m failed"],
        ),
        (lacking("audio_rtf", "no_generation_time"), "degraded", ["audio_rtf lacks 1", "begin"]),
        (lacking("audio_rtf", "empty_audio"), "note", ["nothing in it"]),
        (lacking("audio_rtf", "made_up"), "degraded", ["made_up"]),
    ],
)
def test_what_was_lost_is_said_with_its_number(line: str, severity: str, words: list[str]) -> None:
    findings = [f for f in judge(parse(metrics(line))) if f.check != "no_stage"]
    assert [finding.severity for finding in findings] == [severity]
    assert all(word in findings[0].message for word in words), findings
    zero = line.rpartition(" ")[0] + " 0"
    assert judge(parse(metrics(zero))) == []


# The tables themselves


def counts(measures: tuple[Measure, ...]) -> Iterator[str]:
    yield from (measure.sample for measure in measures if isinstance(measure, Count))


def test_rules_are_about_families_of_the_catalogue() -> None:
    named = [f"{catalog.PREFIX}{tally.sample}" for tally in TALLIES]
    for rule in RULES:
        named += counts((*rule.given, *rule.beyond, *rule.also, *rule.lacks))
    families = {family.name for family in catalog.FAMILIES}
    for name in named:
        if name.startswith(catalog.PREFIX):
            assert name.removesuffix("_count") in families, name
    for rule in RULES:
        for measure in (*rule.given, *rule.beyond, *rule.lacks):
            if isinstance(measure, Count):
                assert set(measure.where.get("hook", ())) <= set(EVENTS), rule.name


def reasons(source: str) -> Iterator[str]:
    """The words that an exporter gives as a reason for a missing sample."""
    for node in ast.walk(ast.parse(source)):
        given: ast.AST | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr.startswith("_missing") and len(node.args) == 2:
                given = node.args[1]
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
    assert given == set(REASONS)
