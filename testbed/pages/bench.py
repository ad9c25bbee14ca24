"""The page about the bench, from the vocabulary that the command compares by."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_omni_metrics_plugin.compare.figures import AUDIO, BENCH_ONLY, REQUESTS
from vllm_omni_metrics_plugin.compare.figures.figure import Figure
from vllm_omni_metrics_plugin.compare.figures.visual import IMAGE, VIDEO
from vllm_omni_metrics_plugin.tables import markdown

_JUDGED = {
    "exact": "equal",
    "time": "tolerance, allowance",
    "ratio": "tolerance",
    "no": "no",
}

_INTRODUCTION = """\
`vllm bench serve --omni` measures a server from the outside, the plugin from the inside. One run
gives both:

```
curl -s localhost:8000/metrics > before.prom
vllm bench serve --omni --backend openai-audio-speech --endpoint /v1/audio/speech \\
    --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --dataset-name random --num-prompts 8 \\
    --percentile-metrics e2el,audio_ttfp,audio_rtf,audio_duration --metric-percentiles 50,99 \\
    --save-result --result-filename result.json
vllm-omni-metrics compare --bench result.json --before before.prom --url http://localhost:8000
```

```
FIGURE                                                    BENCH      SERVER  DIFFERENCE
requests_success_total{finished_reason=~"stop|length"}        8           8       +0.0%  agree
audio_ttfp_seconds_mean                                  0.5508      0.5147       +7.0%  agree
audio_ttfp_seconds_p99                                    1.468   0.75..1.5      within  agree
audio_frames_total                                       906240      906240       +0.0%  agree
audio_rtf_end_to_end_mean                                 1.509       1.497       +0.8%  not judged
audio_rtf_end_to_end                                      1.509       1.503       +0.4%  agree
```

- `--percentile-metrics` matters: without it the bench saves no end-to-end time, no TTFP and no RTF
  of its own.
- The server counts since it was started, for everybody. `--before` is its `/metrics` of before the
  bench, which is subtracted; without it everything is compared, and the output says so. Counts of
  an earlier life of the server are refused. Warm-ups (`--num-warmups`, `--ready-check-timeout-sec`)
  are requests that the server counts and the bench does not.
- The difference is the bench's from the server's, relative to the server's. `--tolerance` is what
  it may be (0.1), `--allowance` the seconds (0.01) that a client's times may have on top for the
  way to the server and back; totals have to be equal.
- Means are sum over count. A percentile is known to the server as a bucket, `0.75..1.5`: what is
  within agrees, what is not is judged by the nearer bound. Narrower buckets say more:
  `VLLM_OMNI_METRICS_BUCKETS_<FAMILY>`.
- The exit status is 0 if all that is judged agrees, 1 if some of it does not, 2 if nothing could be
  compared. `--json` prints the same as one object.
- Without `--url` the bench's figures alone are shown under the names of the server's families.

With `VLLM_OMNI_METRICS=1` in the *bench's* environment, too, the plugin is loaded there, and the
bench itself prints its figures once more under the server's names and saves them as one more entry
of its file, `omni_metrics`. Its own figures stay as they are. The entry has all that the bench
knows of the modality, with or without `--percentile-metrics`, and what it prints and does not save,
such as the generation time of images; `compare` takes from it what the file lacks otherwise.

```
{"completed": 8, ...,
 "omni_metrics": {"audio_ttfp_seconds_mean": 0.5508, "audio_frames_total": 906240, ...}}
```

The tables below are of vLLM-Omni 0.30. The benches of 0.22 to 0.28 define what they have in the
same way; they know no videos, of images only edits, and save no number of samples.

## The names

A figure has the stem of a family if it is defined as the family is, and `_mean`, `_sum`, `_count`
or `_p99` at its end. What is on another basis has another name:

| name | basis | from | to, over the length of the audio |
| --- | --- | --- | --- |
| `audio_rtf` | stage | the last stage was given the request | it finished |
| `audio_rtf_stream` | stream | the request was sent | the last audio reached the client |
| `audio_rtf_end_to_end` | end to end | the request was sent, or arrived | the answer was complete |

The bench calls all it has of these `audio_rtf`: it is the end-to-end one for `/v1/audio/speech` and
the one of the stream for chat. The mean of the requests' ratios is the bench's alone; the ratio of
all time to all audio has the same formula on both sides, and is what is judged. Of the server alone
it is

```
  sum(rate(vllm:omni_e2e_request_latency_seconds_sum[5m]))
/ sum(rate(vllm:omni_audio_duration_seconds_sum[5m]))
```

TTFP has one definition and two observers. The client's begins earlier, with the connection (its
first request opens one), HTTP and the parsing of the request; and it ends later, after the packet
was encoded, sent and noticed. No text and no header is waited for: `/v1/audio/speech` sends the
bench raw PCM, and in a chat the first audio event counts, whatever text came before. An engine that
makes the whole waveform first has no TTFP on the server, while the bench measures its first bytes
all the same.

**Sample rate.** The server takes the rate that the model's output states. The bench cannot see it
in raw PCM and assumes 24 kHz mono; `VLLM_OMNI_BENCH_AUDIO_SAMPLE_RATE` and
`VLLM_OMNI_BENCH_AUDIO_CHANNELS` in its environment tell it otherwise. In a chat it reads the
headers of WAV.
"""


def page(made: str) -> str:
    parts = ["# The bench and the server\n", made, _INTRODUCTION]
    for title, figures in (
        ("Requests", REQUESTS),
        ("Audio", AUDIO),
        ("Images", IMAGE),
        ("Videos", VIDEO),
    ):
        parts += [f"## {title}\n", markdown(_HEADER, _rows(figures))]
        parts += [f"- {', '.join(names)}: {why}" for why, names in _notes(figures)]
        parts.append("")
    parts += [
        "## What only the bench has\n",
        markdown(
            ("in the bench", "meaning", "on the server"),
            ((_code(keys), meaning, _in_table(server)) for keys, meaning, server in BENCH_ONLY),
        ),
    ]
    return "\n".join(parts)


_HEADER = ("figure", "in the bench", "of the server", "judged", "the bench's", "the server's")


def _rows(figures: Iterable[Figure]) -> Iterable[tuple[str, ...]]:
    for figure in figures:
        yield (
            f"`{_in_table(_name(figure))}`",
            f"`{figure.bench_formula}`",
            f"`{_in_table(figure.server_formula)}`",
            _JUDGED[figure.judged],
            figure.bench_meaning,
            figure.server_meaning,
        )


def _name(figure: Figure) -> str:
    end = {"total": "", "quantile": "_p<n>"}.get(figure.aggregate, f"_{figure.aggregate}")
    return figure.name + end


def _in_table(text: str) -> str:
    return text.replace("|", "\\|")


def _notes(figures: Iterable[Figure]) -> Iterable[tuple[str, list[str]]]:
    """What is said of one or more figures, once."""
    found: dict[str, list[str]] = {}
    for figure in figures:
        if figure.why:
            found.setdefault(figure.why, []).append(f"`{_name(figure)}`")
    return found.items()


def _code(keys: str) -> str:
    return ", ".join(f"`{key}`" for key in keys.split(", "))
