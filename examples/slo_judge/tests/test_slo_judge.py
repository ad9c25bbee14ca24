"""The judge without an engine: which requests are good, and what is said about a bad file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from vllm_omni_slo_judge import SloJudge

from vllm_omni_metrics_plugin.hooks import Configured, RequestFinished
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request

SPEECH = """
[[objective]]
name = "speech"
target = 0.95
first_packet_seconds = 0.5
rtf = 1
"""


class Verdicts:
    """What the judge has counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def __call__(self, objective: str = "speech") -> dict[str, float]:
        counted = {
            (sample.labels.get("reason") or sample.name.split("_")[2]): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["objective"] == objective
        }
        return {verdict: value for verdict, value in counted.items() if value}

    def target(self, objective: str = "speech") -> float | None:
        labels = {"objective": objective}
        return self._registry.get_sample_value("omni_slo_target_ratio", labels)


@pytest.fixture
def judge(omni_hooks: HookHarness, tmp_path: Path) -> Callable[[str], Verdicts]:
    """Starts a judge with this TOML text."""

    def start(text: str) -> Verdicts:
        path = tmp_path / "slo.toml"
        path.write_text(text)
        registry = CollectorRegistry()
        omni_hooks.register(SloJudge({"VLLM_OMNI_SLO": str(path)}, registry))
        omni_hooks.fire(make_event(Configured))
        return Verdicts(registry)

    return start


@pytest.mark.parametrize(
    ("request_is", "verdict"),
    [
        ({}, "good"),
        ({"first_packet_seconds": 0.499}, "good"),
        ({"first_packet_seconds": 0.5}, "bad"),
        ({"first_packet_seconds": 0.1, "packet_seconds": 2.0}, "bad"),
        ({"outcome": "length"}, "good"),
        ({"outcome": "error"}, "bad"),
        ({"outcome": "error", "packets": 0}, "bad"),
        ({"outcome": "abort"}, "abort"),
        ({"outcome": "abort", "first_packet_seconds": 0.7}, "bad"),
        ({"outcome": "abort", "packets": 0}, None),
        ({"outcome": "rejected", "packets": 0}, None),
        ({"streamed": False}, "first_packet_seconds"),
        ({"streamed": False, "packet_seconds": 5.0}, "bad"),
    ],
    ids=str,
)
def test_each_request_gets_one_verdict(
    omni_hooks: HookHarness,
    judge: Callable[[str], Verdicts],
    request_is: dict[str, object],
    verdict: str | None,
) -> None:
    verdicts = judge(SPEECH)
    omni_hooks.fire(*speech_request(**request_is))  # type: ignore[arg-type]
    assert verdicts() == ({verdict: 1} if verdict else {})
    assert verdicts.target() == 0.95


def test_request_without_audio_is_not_judged_as_speech(
    omni_hooks: HookHarness, judge: Callable[[str], Verdicts]
) -> None:
    text = '[[objective]]\nname = "all"\ntarget = 0.9\nend_to_end_seconds = 2\n'
    verdicts = judge(SPEECH + text)
    omni_hooks.fire(make_event(RequestFinished, end_to_end_seconds=1.0))
    omni_hooks.fire(make_event(RequestFinished, end_to_end_seconds=2.0))
    assert verdicts() == {}
    assert verdicts("all") == {"good": 1, "bad": 1}


def test_objective_may_be_about_some_models_only(
    omni_hooks: HookHarness, judge: Callable[[str], Verdicts]
) -> None:
    verdicts = judge(SPEECH + 'models = ["large"]\n')
    omni_hooks.fire(*speech_request(model_name="tiny"), *speech_request(model_name="large"))
    assert verdicts() == {"good": 1}


def test_judge_keeps_nothing_of_a_request_that_has_ended(
    omni_hooks: HookHarness, tmp_path: Path
) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(SPEECH)
    judge = omni_hooks.register(SloJudge({"VLLM_OMNI_SLO": str(path)}, CollectorRegistry()))
    omni_hooks.fire(make_event(Configured), *speech_request(), *speech_request(outcome="abort"))
    assert not judge._audio


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("target = 95\nrtf = 1", "target = 95 is not a share between 0 and 1, such as 0.95"),
        ("target = 0.95", "it needs a limit: first_packet_seconds, rtf"),
        ('target = 0.95\nrtf = "fast"', "rtf = 'fast' is not a number above 0"),
        ("target = 0.95\nrtff = 1", "rtff is none of"),
        ("target = 0.95\nrtf = 1\nmodels = 3", "models = 3 is not a list of names"),
    ],
)
def test_mistake_is_named_and_the_other_objectives_are_judged(
    omni_hooks: HookHarness,
    judge: Callable[[str], Verdicts],
    caplog: pytest.LogCaptureFixture,
    mistake: str,
    sentence: str,
) -> None:
    verdicts = judge(f'[[objective]]\nname = "mistaken"\n{mistake}\n{SPEECH}')
    omni_hooks.fire(*speech_request())
    assert verdicts() == {"good": 1}
    [warning] = caplog.messages
    assert f"objective 'mistaken' is left out: {sentence}" in warning


@pytest.mark.parametrize("text", ["[[objective", "", "objective = 1"])
def test_file_that_cannot_be_used_is_named(
    omni_hooks: HookHarness,
    judge: Callable[[str], Verdicts],
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    judge(text)
    omni_hooks.fire(*speech_request())
    assert "slo.toml" in caplog.text
    assert "nothing is judged" in caplog.text


def test_judge_without_a_file_says_so_once(
    omni_hooks: HookHarness, caplog: pytest.LogCaptureFixture
) -> None:
    omni_hooks.register(SloJudge({}, CollectorRegistry()))
    omni_hooks.fire(make_event(Configured), *speech_request())
    assert caplog.messages == ["VLLM_OMNI_SLO is not set to a TOML file; nothing is judged"]


def test_engines_other_processes_judge_nothing(omni_hooks: HookHarness, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    omni_hooks.register(SloJudge({"VLLM_OMNI_SLO": str(tmp_path / "gone.toml")}, registry))
    omni_hooks.fire(make_event(Configured, role="stage_engine"))
    assert list(registry.collect()) == []
