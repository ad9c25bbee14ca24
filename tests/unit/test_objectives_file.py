"""A file of objectives: what it says, and that a mistake in it costs one objective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.objectives import Objective, read, with_bounds
from vllm_omni_metrics_plugin.objectives.values import PER_REQUEST

GOOD = """
[[objective]]
name = "speech"
target = 0.95
limits = { audio_ttfp_seconds = 0.5, audio_rtf = 1 }
"""
SPEECH = Objective(
    "speech",
    0.95,
    {"audio_ttfp_seconds": 0.5, "audio_rtf": 1.0},
    modality="audio",
    streamed=True,
)

Reading = Callable[[str], tuple[tuple[Objective, ...], list[str]]]


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Reads a file with this text; returns its objectives and what was warned of."""
    monkeypatch.chdir(tmp_path)

    def read_text(text: str) -> tuple[tuple[Objective, ...], list[str]]:
        (tmp_path / "slo.toml").write_text(text)
        warnings: list[str] = []
        return read("slo.toml", warnings.append), warnings

    return read_text


def test_objective_says_whom_it_is_about_and_what_it_wants(reading: Reading) -> None:
    text = """
# what we promise
[[objective]]
name = "pictures"
target = 0.99
modality = "image"
models = ["qwen-image", "bagel"]
streamed = false
[objective.limits]
"vllm:omni_image_generation_time_seconds" = 12.5
e2e_request_latency_seconds = 15
"""
    assert reading(text + GOOD) == (
        (
            Objective(
                "pictures",
                0.99,
                {"image_generation_time_seconds": 12.5, "e2e_request_latency_seconds": 15.0},
                modality="image",
                streamed=False,
                models=frozenset({"qwen-image", "bagel"}),
            ),
            SPEECH,
        ),
        [],
    )


@pytest.mark.parametrize(
    ("stem", "modality", "streamed"),
    [
        ("audio_ttfp_seconds", "audio", True),
        ("audio_underrun_seconds", "audio", True),
        ("audio_longest_stall_seconds", "audio", True),
        ("audio_rtf", "audio", None),
        ("image_pixels", "image", None),
        ("video_rtf", "video", None),
        ("e2e_request_latency_seconds", None, None),
        ("diffusion_step_time_ms", None, None),
    ],
)
def test_limit_of_what_some_requests_alone_have_is_about_those(
    reading: Reading, stem: str, modality: str | None, streamed: bool | None
) -> None:
    text = f'[[objective]]\nname = "one"\ntarget = 0.9\nlimits.{stem} = 2\n'
    [objective], warnings = reading(text)
    assert (objective.modality, objective.streamed, warnings) == (modality, streamed, [])


@pytest.mark.parametrize(
    ("mistake", "line", "sentence"),
    [
        ("target = 95\nlimits.audio_rtf = 1", 3, "target = 95 is not a share between 0 and 1"),
        ("target = 1\nlimits.audio_rtf = 1", 3, "target = 1 is not a share between 0 and 1"),
        ("target = true\nlimits.audio_rtf = 1", 3, "target = True is not a share"),
        ("limits.audio_rtf = 1", 1, "target = None is not a share between 0 and 1"),
        ("target = 0.9", 1, "it needs limits, as limits = { audio_rtf = 1.0 }"),
        ("target = 0.9\nlimits = {}", 4, "limits = {} has none: it needs limits"),
        ("target = 0.9\nlimits = 3", 4, "limits = 3 has none: it needs limits"),
        (
            "target = 0.9\n# audio_rtf = 2\n[objective.limits]\naudio_rtf = 'fast'",
            6,
            "audio_rtf = 'fast' is not a number above 0",
        ),
        ("target = 0.9\nlimits = { audio_rtf = 0 }", 4, "audio_rtf = 0 is not a number above 0"),
        ("target = 0.9\nlimits.audio_rtf = inf", 4, "audio_rtf = inf is not a number above 0"),
        ("target = 0.9\nlimits.audio_rtf = nan", 4, "audio_rtf = nan is not a number above 0"),
        (
            "target = 0.9\nlimits.audio_rtt = 1",
            4,
            "audio_rtt = 1 cannot be a limit: there is no such family; did you mean audio_rtf?",
        ),
        (
            "target = 0.9\nlimits.audio_frames_total = 1",
            4,
            "audio_frames_total = 1 cannot be a limit: the family is a counter",
        ),
        (
            "target = 0.9\nlimits.transfer_size_bytes = 1",
            4,
            "transfer_size_bytes = 1 cannot be a limit: the family has no value for each request",
        ),
        (
            'target = 0.9\n[objective.limits]\naudio_rtf = 1\n"vllm:omni_audio_rtf" = 2',
            6,
            "vllm:omni_audio_rtf = 2 is the second limit of audio_rtf",
        ),
        (
            'target = 0.9\nmodality = "sound"\nlimits.audio_rtf = 1',
            4,
            "modality = 'sound' is none of text, audio, image, video",
        ),
        (
            'target = 0.9\nmodality = "image"\nlimits.audio_rtf = 1',
            5,
            "audio_rtf is a family of audio, and modality = 'image'",
        ),
        (
            "target = 0.9\nstreamed = false\nlimits.audio_ttfp_seconds = 1",
            5,
            "audio_ttfp_seconds is a family of streamed audio, and streamed = false",
        ),
        ("target = 0.9\nstreamed = 1\nlimits.audio_rtf = 1", 4, "streamed = 1 is neither true"),
        ("target = 0.9\nmodels = 3\nlimits.audio_rtf = 1", 4, "models = 3 is not a list of names"),
        ("target = 0.9\nmodels = [3]\nlimits.audio_rtf = 1", 4, "models = [3] is not a list"),
        (
            "target = 0.9\nmodel = 'tiny'\nlimits.audio_rtf = 1",
            4,
            "model = 'tiny' is none of name, target, modality, streamed, models, limits; "
            "did you mean models?",
        ),
    ],
)
def test_mistake_is_named_with_its_line_and_the_other_objectives_hold(
    reading: Reading, mistake: str, line: int, sentence: str
) -> None:
    objectives, [warning] = reading(f'[[objective]]\nname = "mistaken"\n{mistake}\n{GOOD}')
    assert objectives == (SPEECH,)
    assert warning.startswith(
        f"VLLM_OMNI_METRICS_SLO='slo.toml', line {line}: objective 'mistaken' is left out: "
    )
    assert sentence in warning


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "objective 2 is left out: it needs a name"),
        ("name = 7", "objective 7 is left out: name = 7 is not a name"),
        ('name = "speech"', "objective 'speech' is left out: there is another objective of this"),
    ],
)
def test_each_objective_has_a_name_of_its_own(reading: Reading, name: str, sentence: str) -> None:
    text = f"{GOOD}\n[[objective]]\n{name}\ntarget = 0.9\nlimits.audio_rtf = 1"
    objectives, [warning] = reading(text)
    assert objectives == (SPEECH,)
    assert sentence in warning


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ('name = "mistaken"\ntarget = \n', "objective 'mistaken' is left out: "),
        ("target = 0.9 0.8\n", "objective 1 is left out: "),
    ],
)
def test_what_is_no_toml_costs_its_objective_alone(
    reading: Reading, broken: str, sentence: str
) -> None:
    objectives, [warning] = reading(f"# two\n\n[[objective]]\n{broken}{GOOD}")
    assert objectives == (SPEECH,)
    assert sentence in warning
    assert f"line {3 + broken.count(chr(10))}" in warning


def test_inline_objectives_are_read_without_lines(reading: Reading) -> None:
    good = '{ name = "speech", target = 0.95, limits = { audio_rtf = 1, audio_ttfp_seconds = 0.5} }'
    objectives, [warning] = reading(f'objective = [{good}, {{ name = "x" }}, 3]'.replace(", 3", ""))
    assert objectives == (SPEECH,)
    assert warning == (
        "VLLM_OMNI_METRICS_SLO='slo.toml': objective 'x' is left out: "
        "target = None is not a share between 0 and 1, as 0.95 is"
    )


def test_other_tables_are_ignored_with_a_word(reading: Reading) -> None:
    objectives, [warning] = reading(f"{GOOD}\n[[objectives]]\nname = 'x'\n")
    assert objectives == (SPEECH,)
    assert "'objectives' is ignored" in warning


@pytest.mark.parametrize("text", ["[[objectiv", "", "# nothing\n", "objective = 1", "\x00"])
def test_file_without_objectives_says_that_nothing_is_judged(reading: Reading, text: str) -> None:
    objectives, warnings = reading(text)
    assert objectives == ()
    assert "slo.toml" in warnings[-1]
    assert "nothing is judged" in warnings[-1]


@pytest.mark.parametrize("kind", ["gone", "folder", "bytes"])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "slo.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe")
    warnings: list[str] = []
    assert read(str(path), warnings.append) == ()
    [warning] = warnings
    assert warning.startswith(f"VLLM_OMNI_METRICS_SLO={str(path)!r} cannot be read (")
    assert warning.endswith("; nothing is judged")


@pytest.mark.parametrize("stem", PER_REQUEST)
def test_limits_are_of_histograms(stem: str) -> None:
    assert catalog.BY_STEM[stem].kind == "histogram"


def test_limit_becomes_a_bound_of_its_family_whatever_the_other_bounds_are() -> None:
    catalogued = catalog.BY_STEM["audio_ttfp_seconds"].buckets
    other = Objective("other", 0.9, {"audio_rtf": 0.97, "e2e_request_latency_seconds": 10.0})
    chosen = with_bounds({"audio_rtf": (0.5, 2.0), "video_rtf": (1.0,)}, [SPEECH, other])
    assert chosen == {
        "audio_rtf": (0.5, 0.97, 1.0, 2.0),
        "video_rtf": (1.0,),
        "audio_ttfp_seconds": catalogued,
        "e2e_request_latency_seconds": catalog.BY_STEM["e2e_request_latency_seconds"].buckets,
    }
    odd = Objective("odd", 0.9, {"audio_ttfp_seconds": 0.51})
    assert with_bounds({}, [odd]) == {"audio_ttfp_seconds": tuple(sorted({*catalogued, 0.51}))}
