"""``make demo``: a real server, real requests, and /metrics beside what the client measured."""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from collections.abc import Callable, Sequence

from testbed.clients import audio, sockets
from testbed.clients.audio import Answer
from testbed.demo import sessions, visual
from testbed.demo.rows import Row, gained_row, idle_rows, settled, table
from testbed.serve import start_visibly
from testbed.server import Server, ServerFailedError
from vllm_omni_metrics_plugin.scrape import Scrape
from vllm_omni_metrics_plugin.tables import aligned

_PIPELINES = ("tts", "omni", "image", "video", "duplex")
Ask = Callable[[], Answer]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument(
        "--pipeline", choices=("tts", "omni", "image", "video", "duplex"), default="tts"
    )
    pipeline = parser.parse_args().pipeline

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    replicas = 2 if pipeline in ("tts", "video") else 1
    server = Server(pipeline, replicas=replicas, env={"VLLM_OMNI_METRICS": "1"})
    try:
        start_visibly(server)
        shows = {"image": visual.show, "video": visual.show, "duplex": sessions.show}
        return _conclude(shows.get(pipeline, _show)(server))
    except ServerFailedError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.stop()


def _show(server: Server) -> list[Row]:
    asks = _requests(server)
    for ask in list(asks.values())[:2]:
        ask()  # a replica's first request pays for things that no later one does
    before = settled(server)
    answers = [_ask(title, ask) for title, ask in asks.items()]
    between = settled(server)
    leaver = _ask("a client who hangs up", _hang_up(server))
    after = settled(server)

    rows = [
        *compare(between - before, answers),
        *compare_hang_up(after - between, leaver),
        *idle_rows(after),
    ]
    print(f"\n{table(rows)}\n\n{_by_replica(between - before)}\n")
    return rows


def _conclude(rows: Sequence[Row]) -> int:
    """The verdict over all rows, as an exit status."""
    wrong = [row.family for row in rows if not row.agrees]
    if wrong:
        print(f"disagree: {', '.join(wrong)}")
        return 1
    print("Every figure agrees with the client's. `make serve` keeps such a server running.")
    return 0


def _ask(title: str, ask: Ask) -> Answer:
    answer = ask()
    first = answer.first_audio_seconds
    start = f"first audio after {1000 * first:.0f} ms" if first else "not streamed"
    print(
        f"  {title:<30} {answer.status}  {answer.audio_seconds:5.2f} s of audio, {start}",
        flush=True,
    )
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
    """The same for one client who left; more left the engine than it received."""
    aborts = gained.sum("vllm:omni_requests_success_total", finished_reason="abort")
    frames = gained.sum("vllm:omni_audio_frames_total")
    return [
        Row("hang-up: requests_success_total abort", aborts, 1),
        Row("hang-up: audio_frames_total", frames, answer.samples, at_least=True),
    ]


def _by_replica(gained: Scrape) -> str:
    """Which replica said how much of it, and how fast."""
    lines = []
    for labels in gained.label_sets("vllm:omni_audio_rtf_count"):
        replica = {name: labels[name] for name in ("stage", "replica")}

        def mean(family: str, replica: dict[str, str] = replica) -> float:
            count = gained.sum(f"{family}_count", **replica)
            return gained.sum(f"{family}_sum", **replica) / count if count else float("nan")

        lines.append(
            (
                *replica.values(),
                f"{gained.sum('vllm:omni_audio_duration_seconds_sum', **replica):.2f}",
                f"{gained.sum('vllm:omni_audio_frames_total', **replica):.0f}",
                f"{1000 * mean('vllm:omni_audio_ttfp_seconds'):.1f}",
                f"{mean('vllm:omni_audio_rtf'):.3f}",
            )
        )
    header = ("STAGE", "REPLICA", "AUDIO S", "FRAMES", "MEAN TTFP MS", "MEAN RTF")
    return aligned(header, lines, right=range(len(header)))


if __name__ == "__main__":
    sys.exit(main())
