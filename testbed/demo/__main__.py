"""``make demo``: a real server, real requests, and /metrics beside what the client measured."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from testbed.clients import audio, sockets
from testbed.clients.audio import Answer
from testbed.serve import start_visibly
from testbed.server import Server, ServerFailedError
from vllm_omni_metrics_plugin.scrape import Scrape, scrape

Ask = Callable[[], Answer]

#: Durations may differ by this much or this share per request, whichever is larger.
_APART_SECONDS = 0.015
_APART_SHARE = 0.05
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """One figure, as /metrics says it and as the client knows it."""

    family: str
    server: float
    client: float
    #: How far apart the two may be.
    allowed: float = 0.0
    #: The client cannot know more than a lower bound.
    at_least: bool = False

    @property
    def agrees(self) -> bool:
        if self.at_least:
            return self.server >= self.client
        return abs(self.server - self.client) <= self.allowed + 1e-6

    @property
    def verdict(self) -> str:
        if not self.agrees:
            return "[red]differ"
        if self.at_least:
            return "[green]at least"
        return "[green]within tolerance" if self.allowed else "[green]equal"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--pipeline", choices=("tts", "omni", "image", "video"), default="tts")
    pipeline = parser.parse_args().pipeline

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    replicas = 2 if pipeline in ("tts", "video") else 1
    server = Server(pipeline, replicas=replicas, env={"VLLM_OMNI_METRICS": "1"})
    try:
        start_visibly(server)
        if pipeline in ("image", "video"):
            from testbed.demo import visual

            return conclude(visual.show(server, console), console)
        return conclude(_show(server, console), console)
    except ServerFailedError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.stop()


def _show(server: Server, console: Console) -> list[Row]:
    asks = _requests(server)
    for ask in list(asks.values())[:2]:
        ask()  # a replica's first request pays for things that no later one does
    before = settled(server)
    answers = [_ask(title, ask, console) for title, ask in asks.items()]
    between = settled(server)
    leaver = _ask("a listener who hangs up", _hang_up(server), console)
    after = settled(server)

    rows = [
        *compare(between - before, answers),
        *compare_hang_up(after - between, leaver),
        *idle(after),
    ]
    print_rows(rows, console)
    _print_speakers(between - before, console)
    return rows


def idle(seen: Scrape) -> list[Row]:
    """What /metrics must say when nothing is going on."""
    return [
        Row(f"{family}, idle", seen.sum(f"vllm:omni_{family}"), 0)
        for family in ("num_requests_running", "num_requests_waiting")
    ]


def conclude(rows: Sequence[Row], console: Console) -> int:
    """The verdict over all rows, as an exit status."""
    wrong = [row.family for row in rows if not row.agrees]
    if wrong:
        console.print(f"[red]disagree: {', '.join(wrong)}")
        return 1
    console.print(
        "Every figure agrees with the client's. `make serve` keeps such a server running."
    )
    return 0


def _ask(title: str, ask: Ask, console: Console) -> Answer:
    answer = ask()
    first = answer.first_audio_seconds
    heard = f"first audio after {1000 * first:.0f} ms" if first else "not streamed"
    line = f"  {title:<30} {answer.status}  {answer.audio_seconds:5.2f} s of audio, {heard}"
    console.print(line, soft_wrap=True, highlight=False)
    return answer


def _requests(server: Server) -> dict[str, Ask]:
    url = server.url
    if server.pipeline.name == "omni":
        chat = functools.partial(audio.chat, url)
        return {
            "chat, text and audio": chat,
            "chat, text and audio, streamed": functools.partial(chat, stream=True),
            "chat, text": functools.partial(chat, modalities=("text",)),
            "chat, audio, streamed": functools.partial(chat, modalities=("audio",), stream=True),
        }
    speech = functools.partial(audio.speech, url)
    return {
        "speech, one WAV": functools.partial(speech, tokens=20),
        "speech, raw stream": functools.partial(speech, tokens=30, stream="audio"),
        "speech, server-sent events": functools.partial(speech, tokens=40, stream="sse"),
        "speech, websocket": functools.partial(sockets.speech, url, tokens=25),
        "speech, one WAV, longer": functools.partial(speech, tokens=60),
        "speech, raw stream, longer": functools.partial(speech, tokens=80, stream="audio"),
        "speech, empty text (refused)": functools.partial(speech, ""),
    }


def _hang_up(server: Server) -> Ask:
    if server.pipeline.name == "omni":
        return functools.partial(audio.chat, server.url, stream=True, hang_up_after_packets=1)
    return functools.partial(
        audio.speech, server.url, tokens=250, stream="audio", hang_up_after_packets=2
    )


def gained_row(gained: Scrape, family: str, truth: float, apart: Sequence[float] = ()) -> Row:
    """One sample's growth beside the truth; ``apart`` are the durations that are in it."""
    allowed = sum(max(_APART_SECONDS, _APART_SHARE * seconds) for seconds in apart)
    return Row(family, gained.sum(f"vllm:omni_{family.replace(' ', '_')}"), truth, allowed)


def compare(gained: Scrape, answers: Sequence[Answer]) -> list[Row]:
    """What an honest /metrics must say about these undisturbed answers, figure by figure."""
    accepted = [answer for answer in answers if answer.accepted]
    voiced = [answer for answer in accepted if answer.samples]
    ends = [answer.total_seconds for answer in accepted]
    firsts = [a.first_audio_seconds for a in voiced if a.first_audio_seconds is not None]
    lengths = [answer.audio_seconds for answer in voiced]

    row = functools.partial(gained_row, gained)
    return [
        row("requests_success_total", len(accepted)),
        row("e2e_request_latency_seconds count", len(accepted)),
        row("e2e_request_latency_seconds sum", sum(ends), apart=ends),
        row("request_queue_time_seconds count", len(accepted)),
        row("audio_ttfp_seconds count", len(firsts)),
        row("audio_ttfp_seconds sum", sum(firsts), apart=firsts),
        row("audio_duration_seconds count", len(voiced)),
        row("audio_duration_seconds sum", sum(lengths)),
        row("audio_rtf count", len(voiced)),
        row("audio_frames_total", sum(answer.samples for answer in voiced)),
        row("metrics_missing_samples_total", 0),
    ]


def compare_hang_up(gained: Scrape, answer: Answer) -> list[Row]:
    """The same for one listener who left; more left the engine than was heard."""
    aborts = gained.sum("vllm:omni_requests_success_total", finished_reason="abort")
    frames = gained.sum("vllm:omni_audio_frames_total")
    return [
        Row("hang-up: requests_success_total abort", aborts, 1),
        Row("hang-up: audio_frames_total", frames, answer.samples, at_least=True),
    ]


def print_rows(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="vllm:omni_... on /metrics, and what the client knows")
    table.add_column("family", no_wrap=True)
    table.add_column("/metrics", justify="right")
    table.add_column("client", justify="right")
    table.add_column("", justify="center")
    for row in rows:
        table.add_row(row.family, _figure(row.server), _figure(row.client), row.verdict)
    console.print(table)


def _print_speakers(gained: Scrape, console: Console) -> None:
    split = Table(title="who said it")
    for column in ("stage", "replica", "audio s", "frames", "mean TTFP ms", "mean RTF"):
        split.add_column(column, justify="right")
    for labels in gained.label_sets("vllm:omni_audio_rtf_count"):
        speaker = {name: labels[name] for name in ("stage", "replica")}

        def mean(family: str, speaker: dict[str, str] = speaker) -> float:
            count = gained.sum(f"{family}_count", **speaker)
            return gained.sum(f"{family}_sum", **speaker) / count if count else float("nan")

        split.add_row(
            *speaker.values(),
            f"{gained.sum('vllm:omni_audio_duration_seconds_sum', **speaker):.2f}",
            f"{gained.sum('vllm:omni_audio_frames_total', **speaker):.0f}",
            f"{1000 * mean('vllm:omni_audio_ttfp_seconds'):.1f}",
            f"{mean('vllm:omni_audio_rtf'):.3f}",
        )
    console.print(split)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == round(value, 6) == int(value) else f"{value:.3f}"


def settled(server: Server) -> Scrape:
    """/metrics once nothing is running any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        seen = scrape(server.url)
        if not seen.sum("vllm:omni_num_requests_running") or time.monotonic() > deadline:
            return seen
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
