"""The bench's figures beside the server's: reading both, judging, and what cannot be compared."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.unit.metrics_page import MetricsPage
from vllm_omni_metrics_plugin import catalog, cli
from vllm_omni_metrics_plugin.compare import comparison, result, totals
from vllm_omni_metrics_plugin.compare.comparison import Tolerance
from vllm_omni_metrics_plugin.compare.figures import FIGURES
from vllm_omni_metrics_plugin.compare.figures.figure import DUPLEX, Figure
from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    MediaPacket,
    PatchReported,
    ReplicaJoined,
    RequestArrived,
    RequestFinished,
    StageSubmitted,
    StreamFinished,
)
from vllm_omni_metrics_plugin.testing import make_event

SUCCESSES = 'requests_success_total{finished_reason=~"stop|length"}'
FAILURES = 'requests_success_total{finished_reason!~"stop|length"}'

#: Of four requests as the bench of vllm-omni 0.30 saves them, abridged.
BENCH = {
    "backend": "openai-audio-speech",
    "duration": 2.0,
    "completed": 4,
    "failed": 0,
    "total_audio_duration_s": 8.0,
    "total_audio_frames": 192000,
    "total_images": 0,
    "mean_video_rtf": 0.0,
    "num_audio_ttfp_samples": 4,
    "mean_e2el_ms": 1005.0,
    "median_e2el_ms": 1005.0,
    "p99_e2el_ms": 1205.0,
    "mean_audio_ttfp_ms": 105.0,
    "median_audio_ttfp_ms": 105.0,
    "p50_audio_ttfp_ms": 105.0,
    "p99_audio_ttfp_ms": 125.0,
    "mean_audio_rtf": 0.5025,
    "mean_audio_duration_s": 2.0,
    "mean_audio_underrun_s": 0.155,
    "median_audio_underrun_s": 0.005,
    "p99_audio_underrun_s": 0.602,
    "audio_continuity_ok_rate": 0.75,
}


Metrics = Callable[..., bytes]
NOBODY_YET: dict[str, Any] = {
    "latencies": (),
    "ttfps": (),
    "rtfs": (),
    "lengths": (),
    "underruns": (),
    "frames": 0,
    "reasons": {},
}


def speak(
    page: MetricsPage,
    latencies: Sequence[float] = (0.8, 1.0, 1.0, 1.2),
    ttfps: Sequence[float] = (0.08, 0.1, 0.1, 0.12),
    rtfs: Sequence[float] = (0.4, 0.5, 0.5, 0.6),
    lengths: Sequence[float] = (2.0, 2.0, 2.0, 2.0),
    underruns: Sequence[float] = (0.0, 0.6, 0.0, 0.0),
    frames: int = 192000,
    reasons: Mapping[str, int] | None = None,
    untimed: int = 0,
    running: int = 0,
    started: float = 1000.0,
) -> None:
    """What a server says that has spoken four times, half of it by each of two replicas.

    ``untimed`` more outputs are complete without a generation time.
    """
    page.fire(make_event(PatchReported), make_event(ReplicaJoined))
    for n, seconds in enumerate(ttfps):
        page.fire(make_event(MediaPacket, replica=n % 2, samples=0, since_arrival_seconds=seconds))
    for replica in range(2):
        page.fire(make_event(MediaPacket, index=1, replica=replica, samples=frames // 2))
    for n, (rtf, length) in enumerate(zip(rtfs, lengths, strict=True)):
        audio = {"duration_seconds": length, "generation_seconds": rtf * length}
        page.fire(make_event(AudioFinished, replica=n % 2, **audio))
    for n, seconds in enumerate(underruns):
        page.fire(make_event(StreamFinished, replica=n % 2, underrun_seconds=seconds))
    for _ in range(untimed):
        page.fire(make_event(AudioFinished, replica=0, generation_seconds=None))
    times = itertools.cycle(latencies)
    for reason, count in ({"stop": 3, "length": 1} if reasons is None else reasons).items():
        for _ in range(count):
            seconds = next(times) if reason in ("stop", "length") else 1.0
            finished = make_event(RequestFinished, outcome=reason, end_to_end_seconds=seconds)
            page.fire(make_event(RequestArrived), finished)
    for n in range(running):
        page.fire(make_event(RequestArrived, request_id=f"running-{n}"))
        page.fire(
            make_event(StageSubmitted, request_id=f"running-{n}", model_name="tiny", first=True)
        )
    page.add_other("process_start_time_seconds", started)


class Answering(BaseHTTPRequestHandler):
    """/metrics with whatever text a test has put into the server's."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(self.server.text)  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def metrics(metrics_page: Any) -> Metrics:
    """The text of such a server's page; the arguments are those of :func:`speak`."""

    def metrics(**spoken: Any) -> bytes:
        with metrics_page() as page:
            speak(page, **spoken)
            return cast("bytes", page.text())

    return metrics


@pytest.fixture
def compare(
    server: Any, metrics: Metrics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command for one bench and one server; gives status, output and complaint."""

    def run(
        bench: object = BENCH,
        after: bytes | None = None,
        before: bytes | None = None,
        options: Sequence[str] = (),
    ) -> tuple[int, str, str]:
        file, earlier = tmp_path / "result.json", tmp_path / "before.prom"
        file.write_text(bench if isinstance(bench, str) else json.dumps(bench))
        arguments = ["compare", "--bench", str(file), *options]
        if before is not None:
            earlier.write_bytes(before)
            arguments += ["--before", str(earlier)]
        server.text = metrics() if after is None else after
        status = cli.main([*arguments, "--url", f"http://127.0.0.1:{server.server_port}"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def verdicts(out: str) -> dict[str, str]:
    """Of the table, by figure."""
    lines = out.split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: " ".join(line.split()[4:]) for line in lines}


# The vocabulary


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f"{f.name}-{f.aggregate}-{f.bench}")
def test_figure_has_the_name_of_the_family_that_it_is_compared_with(figure: Figure) -> None:
    family = catalog.BY_STEM[figure.family]
    if figure.name.partition("{")[0] != figure.family:
        assert figure.name.partition("{")[0] not in catalog.BY_STEM, "another basis, another name"
        assert figure.why
        assert figure.judged == "no" or figure.over, "judged, but under another name"
    if figure.judged == "no":
        assert figure.why, "say why it is not judged"
    assert (figure.aggregate == "share") == (figure.at_most is not None)
    assert figure.at_most is None or figure.at_most in family.buckets
    histogram = figure.aggregate != "total" and not figure.over
    assert (family.kind == "histogram") == (histogram or figure.over is not None)
    if figure.bench.endswith("_ms") and not figure.over and figure.name.endswith("_seconds"):
        assert figure.to_unit == 0.001
    assert figure.bench_meaning.endswith(".")
    assert figure.server_meaning.endswith(".")


def test_no_backend_gives_one_name_two_meanings() -> None:
    backends = {backend for figure in FIGURES for backend in figure.backends}
    for backend in backends | {""}:
        names = [
            (figure.name, figure.aggregate)
            for figure in FIGURES
            if not figure.backends or backend in figure.backends
        ]
        assert len(names) == len(set(names)), backend


def test_duplex_sessions_have_no_figure() -> None:
    assert not {b for f in FIGURES for b in f.backends} & set(DUPLEX)


# Agreement


def test_bench_and_server_that_saw_the_same_agree(compare: Any, metrics: Metrics) -> None:
    status, out, _ = compare(before=metrics(**NOBODY_YET))
    assert status == 0, out
    said = verdicts(out)
    assert said.pop("audio_ttfp_seconds_count") == "not judged"
    assert said.pop("audio_rtf_end_to_end_mean") == "not judged"
    assert said.pop("audio_continuous_share") == "not judged"
    assert said == dict.fromkeys(
        [
            SUCCESSES,
            *(f"e2e_request_latency_seconds_{end}" for end in ("mean", "p50", "p99")),
            *(f"audio_ttfp_seconds_{end}" for end in ("mean", "p50", "p99")),
            "audio_frames_total",
            *(f"audio_duration_seconds_{end}" for end in ("sum", "mean")),
            "audio_rtf_end_to_end",
            *(f"audio_underrun_seconds_{end}" for end in ("mean", "p50", "p99")),
        ],
        "agree",
    )


@pytest.mark.parametrize(
    ("after", "apart"),
    [
        ({"reasons": {"stop": 4, "length": 1}}, {SUCCESSES}),
        ({"frames": 192002}, {"audio_frames_total"}),
        (
            {"ttfps": (0.02, 0.02, 0.02, 0.02)},
            {"audio_ttfp_seconds_mean", "audio_ttfp_seconds_p50"},
        ),
        ({"latencies": (1.6, 1.7, 1.7, 1.8)}, {"e2e_request_latency_seconds_mean"}),
        (
            {"underruns": (0.9, 1.2, 0.4, 0.9)},
            {f"audio_underrun_seconds_{end}" for end in ("mean", "p50", "p99")},
        ),
    ],
)
def test_figure_that_is_wrong_on_the_server_is_named(
    compare: Any, metrics: Metrics, after: dict[str, Any], apart: set[str]
) -> None:
    status, out, _ = compare(after=metrics(**after))
    assert status == 1
    found = {name for name, verdict in verdicts(out).items() if verdict == "apart"}
    assert apart <= found, out
    assert all(name in out.splitlines()[-1] for name in apart)


def test_relative_difference_is_the_benchs_from_the_servers(compare: Any) -> None:
    _, out, _ = compare(options=["--json"])
    figures = {figure["figure"]: figure for figure in json.loads(out)["figures"]}
    assert figures["audio_ttfp_seconds_mean"]["bench"] == pytest.approx(0.105)
    assert figures["audio_ttfp_seconds_mean"]["server"] == pytest.approx(0.1)
    assert figures["audio_ttfp_seconds_mean"]["difference"] == pytest.approx(0.05)
    assert figures["audio_rtf_end_to_end"]["bench"] == pytest.approx(4 * 1.005 / 8)
    assert figures["audio_rtf_end_to_end"]["server"] == pytest.approx(4.0 / 8)
    assert figures["audio_rtf_end_to_end_mean"]["server"] == pytest.approx(0.5)
    assert figures["audio_rtf_end_to_end_mean"]["difference"] == pytest.approx(0.005)
    # 0.12 is in the bucket up to 0.15, and so is the client's 0.125.
    assert figures["audio_ttfp_seconds_p99"]["server_low"] == 0.075
    assert figures["audio_ttfp_seconds_p99"]["server_high"] == 0.15
    assert figures["audio_ttfp_seconds_p99"]["difference"] == 0


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 0),
        (["--allowance", "0"], 0),
        (["--tolerance", "0.01"], 0),
        (["--tolerance", "0.01", "--allowance", "0.001"], 1),
    ],
)
def test_times_may_be_apart_by_the_tolerance_and_the_allowance(
    compare: Any, options: list[str], status: int
) -> None:
    assert compare(options=options)[0] == status


def test_totals_are_exact_whatever_the_tolerance(compare: Any) -> None:
    assert compare(bench={**BENCH, "completed": 5}, options=["--tolerance", "9"])[0] == 1


def test_failures_are_shown_and_not_judged(compare: Any, metrics: Metrics) -> None:
    after = metrics(reasons={"stop": 4, "abort": 2})
    status, out, _ = compare(bench={**BENCH, "failed": 3}, after=after)
    assert status == 0
    assert verdicts(out)[FAILURES] == "not judged"
    assert "4xx" in out


def test_figure_of_another_basis_says_which_number_is_beside_it(compare: Any) -> None:
    out = compare()[1]
    assert (
        "audio_rtf_end_to_end_mean: The server's number is audio_rtf_sum / audio_rtf_count" in out
    )


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("openai-audio-speech", "audio_rtf_end_to_end_mean"),
        ("openai-chat-omni", "audio_rtf_stream_mean"),
    ],
)
def test_one_key_of_two_meanings_has_two_names(compare: Any, backend: str, name: str) -> None:
    said = verdicts(compare(bench={**BENCH, "backend": backend})[1])
    assert [figure for figure in said if figure.startswith("audio_rtf") and "mean" in figure] == [
        name
    ]


def test_samples_that_the_server_missed_are_mentioned(compare: Any, metrics: Metrics) -> None:
    out = compare(after=metrics(untimed=2))[1]
    assert "could not measure 2 of them (no_generation_time)" in out


def test_server_that_is_still_busy_is_mentioned(compare: Any, metrics: Metrics) -> None:
    assert "1 unfinished requests: ask again" in compare(after=metrics(running=1))[1]


# What was there before


def test_what_was_counted_before_the_bench_is_subtracted(compare: Any, metrics: Metrics) -> None:
    earlier = {"latencies": (9.0,), "ttfps": (9.0,), "rtfs": (9.0,), "lengths": (60.0,)}
    before = metrics(frames=1000, reasons={"stop": 1}, **earlier)
    both = {key: (*value, *DEFAULTS[key]) for key, value in earlier.items()}
    after = metrics(frames=193000, reasons={"stop": 4, "length": 1}, **both)
    assert compare(before=before, after=after)[0] == 0
    assert compare(after=after)[0] == 1


DEFAULTS = {
    "latencies": (1.2, 1.0, 1.0, 0.8),
    "ttfps": (0.12, 0.1, 0.1, 0.08),
    "rtfs": (0.6, 0.5, 0.5, 0.4),
    "lengths": (2.0, 2.0, 2.0, 2.0),
}


def test_without_it_the_output_says_that_all_is_compared(compare: Any) -> None:
    assert "Everything since the server's start is compared" in compare()[1]


@pytest.mark.parametrize(
    ("before", "complaint"),
    [
        ({"started": 900.0}, "the server was started again since then"),
        ({"frames": 400000}, "vllm:omni_audio_frames_total"),
        ({"reasons": {"repetition": 1}}, "is gone now"),
        (b"", "none of the plugin's families"),
        (b"<html>", "no text that Prometheus would read"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_counts_of_another_life_of_the_server_are_not_subtracted(
    compare: Any, metrics: Metrics, before: bytes | dict[str, Any], complaint: str
) -> None:
    text = before if isinstance(before, bytes) else metrics(**before)
    status, out, err = compare(before=text)
    assert (status, out) == (2, "")
    assert "before.prom" in err
    assert complaint in err


# What cannot be compared


@pytest.mark.parametrize(
    ("bench", "complaint"),
    [
        ("", "no result of `vllm bench serve`"),
        ("no json", "is not JSON"),
        ("[1, 2]", "no result of `vllm bench serve`"),
        ("{}", "it has no `completed`"),
        ("[" * 100_000, "is not JSON"),
        ({**BENCH, "completed": "many"}, "completed is 'many', not a number"),
        ({**BENCH, "completed": True}, "completed is True, not a number"),
        ({**BENCH, "completed": None}, "completed is None"),
        ({**BENCH, "completed": 0}, "no request was completed"),
        ({**BENCH, "mean_audio_ttfp_ms": [1]}, "mean_audio_ttfp_ms is [1], not a number"),
        ({**BENCH, "total_audio_frames": -1}, "total_audio_frames is -1, which cannot"),
        ({**BENCH, "mean_e2el_ms": math.inf}, "mean_e2el_ms is inf, which cannot"),
        (json.dumps({**BENCH, "failed": 10**400}), "which cannot be measured"),
        ({**BENCH, "backend": "/v1/videos", "percentiles_video_rtf": [1]}, "not pairs"),
        ({**BENCH, "backend": "/v1/videos", "percentiles_video_rtf": 3}, "not pairs"),
        ({**BENCH, "backend": "openai-realtime-duplex"}, "duplex sessions"),
    ],
)
def test_file_that_is_no_bench_is_named_with_what_is_wrong(
    compare: Any, bench: object, complaint: str
) -> None:
    status, out, err = compare(bench=bench)
    assert (status, out) == (2, "")
    assert "result.json" in err
    assert complaint in err


def test_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--bench", "/nowhere/result.json"]) == 2
    assert "/nowhere/result.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_server_that_does_not_answer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(BENCH))
    assert cli.main(["compare", "--bench", str(file), "--url", url]) == 2
    assert f"{url}/metrics does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"# TYPE up gauge\nup 1\n", "is VLLM_OMNI_METRICS=1 set there?"),
        (b"\xff", "does not answer"),
        (b"vllm:omni_audio_rtf_sum nonsense\n", "no text that Prometheus"),
        (b"vllm:omni_audio_rtf_sum NaN\n", "is NaN"),
    ],
)
def test_answer_of_another_server_is_told_apart(
    compare: Any, metrics: Metrics, text: bytes, complaint: str
) -> None:
    status, _, err = compare(after=metrics() + text if text.startswith(b"vllm:") else text)
    assert status == 2
    assert complaint in err


@pytest.mark.parametrize("option", ["--tolerance", "--allowance"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much"])
def test_limit_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--bench", "x", f"{option}={value}"])
    assert ended.value.code == 2
    assert repr(value) in capsys.readouterr().err


def test_before_without_a_server_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(BENCH))
    assert cli.main(["compare", "--bench", str(file), "--before", str(file)]) == 2
    assert "--url" in capsys.readouterr().err


# Missing values


def test_nan_and_missing_keys_are_no_values(compare: Any) -> None:
    bench = {key: value for key, value in BENCH.items() if "e2el" not in key}
    status, out, _ = compare(bench={**bench, "mean_audio_ttfp_ms": math.nan})
    assert status == 0
    said = verdicts(out)
    assert said["audio_ttfp_seconds_mean"] == "no bench value"
    assert said["audio_rtf_end_to_end"] == "no bench value"


def test_server_without_a_sample_is_no_zero(compare: Any, metrics: Metrics) -> None:
    status, out, _ = compare(after=metrics(ttfps=()))
    assert status == 0
    assert verdicts(out)["audio_ttfp_seconds_mean"] == "no server value"
    assert verdicts(out)["audio_ttfp_seconds_p99"] == "no server value"


def test_bench_without_samples_says_zero_and_is_not_believed(compare: Any) -> None:
    _, out, _ = compare(bench={**BENCH, "mean_audio_duration_s": 0.0})
    assert verdicts(out)["audio_duration_seconds_mean"] == "no bench value"


def test_stream_without_a_gap_is_measured_by_both(compare: Any, metrics: Metrics) -> None:
    gapless = {key: 0.0 for key in BENCH if key.endswith("_audio_underrun_s")}
    bench = {**BENCH, **gapless, "audio_continuity_ok_rate": 1.0}
    out = compare(bench=bench, after=metrics(underruns=(0.0,) * 4))[1]
    said = verdicts(out)
    assert said["audio_underrun_seconds_mean"] == "agree"
    assert said["audio_underrun_seconds_p99"] == "agree"
    lines = [line.split() for line in out.splitlines()]
    assert ["audio_continuous_share", "1", "1", "+0.0%", "not", "judged"] in lines
    broken = {**BENCH, "audio_continuity_ok_rate": 0.0}
    out = compare(bench=broken, after=metrics(underruns=(0.11, 1.0)))[1]
    lines = [line.split() for line in out.splitlines()]
    assert ["audio_continuous_share", "0", "0", "+0.0%", "not", "judged"] in lines


def test_continuity_is_the_servers_share_of_streams_up_to_a_tenth_of_a_second(
    compare: Any, metrics: Metrics
) -> None:
    after = metrics(underruns=(0.0, 0.1, 0.1, 0.101, 4.0))
    out = compare(after=after, options=["--json"])[1]
    (figure,) = (f for f in json.loads(out)["figures"] if f["figure"] == "audio_continuous_share")
    assert (figure["bench"], figure["server"]) == (0.75, pytest.approx(0.6))
    assert figure["verdict"] == "not judged"
    assert 'audio_underrun_seconds_bucket{le="0.1"}' in figure["notes"][0]


def test_continuity_needs_its_bucket_and_streams(compare: Any, metrics: Metrics) -> None:
    other = metrics().replace(b'le="0.1"', b'le="0.15"')
    assert verdicts(compare(after=other)[1])["audio_continuous_share"] == "no server value"
    silent = verdicts(compare(after=metrics(underruns=()))[1])
    assert silent["audio_continuous_share"] == "no server value"


def test_chat_that_the_bench_does_not_listen_to_has_no_underrun(compare: Any) -> None:
    said = verdicts(compare(bench={**BENCH, "backend": "openai-chat-omni"})[1])
    assert not [name for name in said if "underrun" in name or "continuous" in name]


def test_modality_that_neither_side_has_seen_is_left_out(compare: Any) -> None:
    assert not [name for name in verdicts(compare()[1]) if name.startswith(("image", "video"))]


# The bench alone


def test_bench_alone_is_shown_under_the_names_of_the_families(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    file.write_text(f"{json.dumps({'completed': 0})}\n{json.dumps(BENCH)}")
    assert cli.main(["compare", "--bench", str(file)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["audio_ttfp_seconds_mean", "0.105", "mean_audio_ttfp_ms"] in lines
    assert ["audio_frames_total", "192000", "total_audio_frames"] in lines

    assert cli.main(["compare", "--bench", str(file), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    by_name = {figure["figure"]: figure for figure in figures}
    assert by_name["audio_ttfp_seconds_p99"]["bench"] == pytest.approx(0.125)
    assert by_name["audio_ttfp_seconds_p99"]["family"] == "vllm:omni_audio_ttfp_seconds"


def test_last_of_several_appended_runs_counts(compare: Any) -> None:
    both = "\n".join(json.dumps({**BENCH, "completed": n}) for n in (7, 4))
    status, out, _ = compare(bench=both)
    assert status == 0
    assert "holds 2 runs; this is the last" in out


def test_percentiles_in_lists_are_read_as_well() -> None:
    said = {"completed": 1, "backend": "/v1/videos", "percentiles_video_rtf": [[99.0, 3.5]]}
    figures = {m.name: m.value for m in result.Result(said).figures()}
    assert figures["video_rtf_p99"] == 3.5


def test_what_the_plugin_has_put_into_the_file_fills_what_the_bench_did_not_save(
    compare: Any,
) -> None:
    bench = {key: value for key, value in BENCH.items() if "ttfp_ms" not in key}
    assert verdicts(compare(bench=bench)[1])["audio_ttfp_seconds_mean"] == "no bench value"
    named = {
        "audio_ttfp_seconds_mean": 0.105,
        "audio_ttfp_seconds_p95": 0.12,
        "audio_frames_total": 1,
    }
    status, out, _ = compare(bench={**bench, result.NAMED: named})
    assert status == 0, "the bench's own word comes first"
    assert verdicts(out)["audio_ttfp_seconds_mean"] == "agree"
    assert verdicts(out)["audio_ttfp_seconds_p95"] == "agree"
    status, _, err = compare(bench={**bench, result.NAMED: {"audio_ttfp_seconds_mean": "x"}})
    assert status == 2
    assert "omni_metrics.audio_ttfp_seconds_mean is 'x'" in err


# Quantiles


@given(
    some.lists(some.floats(0, 400), min_size=1, max_size=60),
    some.sampled_from([0, 1, 25, 50, 90, 99, 100]),
)
def test_percentile_of_the_values_is_within_the_bounds_of_the_buckets(
    values: list[float], percent: int
) -> None:
    bounds = (*catalog.BY_STEM["audio_ttfp_seconds"].buckets, math.inf)
    buckets = tuple((bound, float(sum(v <= bound for v in values))) for bound in bounds)
    histogram = totals.Histogram(len(values), sum(values), buckets)
    found = histogram.quantile(percent)
    assert found is not None
    assert found[0] <= float(numpy.percentile(values, percent)) * (1 + 1e-12)
    assert float(numpy.percentile(values, percent)) <= found[1] * (1 + 1e-12)


def test_quantile_beyond_the_last_bound_has_no_upper_one(compare: Any, metrics: Metrics) -> None:
    status, out, _ = compare(
        after=metrics(ttfps=(900.0,) * 4), bench={**BENCH, "p99_audio_ttfp_ms": 9e5}
    )
    assert status == 1
    assert verdicts(out)["audio_ttfp_seconds_p99"] == "agree"
    assert json.loads(compare(after=metrics(ttfps=(900.0,) * 4), options=["--json"])[1])


@pytest.mark.parametrize(
    ("judged", "bench", "allowed"),
    [
        ("exact", 1.0, True),
        ("exact", 1.0001, False),
        ("ratio", 1.1, True),
        ("ratio", 0.89, False),
        ("ratio", 1.105, False),
        ("time", 1.105, True),
        ("time", 1.12, False),
        ("time", 0.88, False),
    ],
)
def test_each_kind_of_figure_has_its_limit(judged: Any, bench: float, allowed: bool) -> None:
    figure = Figure("x", "mean", "x", "audio_rtf", judged, ".", ".")
    server = comparison.Interval(1.0, 1.0)
    assert Tolerance(0.1 + 1e-9, 0.01).allows(figure, bench, server) is allowed


@pytest.mark.parametrize(("bench", "allowed"), [(0.89, False), (0.91, True), (2.19, True)])
def test_what_is_outside_of_a_bucket_is_judged_by_the_nearer_bound(
    bench: float, allowed: bool
) -> None:
    figure = Figure("x", "quantile", "x", "audio_rtf", "ratio", ".", ".")
    server = comparison.Interval(1.0, 2.0)
    assert Tolerance(0.1, 0.0).allows(figure, bench, server) is allowed
