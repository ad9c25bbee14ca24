"""The demo of sessions of speech in and out at once: what their client says beside /metrics."""

from __future__ import annotations

import functools

from testbed.clients.sessions import Session, Turn
from testbed.demo.rows import Row, gained_row, idle_rows, settled, table
from testbed.server import Server
from vllm_omni_metrics_plugin.scrape import Scrape


def show(server: Server) -> list[Row]:
    """Speak in three sessions; the rows of what both sides say."""
    _committed(server)  # the first turn pays for things that no later one does
    before = settled(server)
    waited, complete = _committed(server)
    heard_waits, spoken = _interrupted(server)
    turns = [complete, *spoken]
    with Session(server.url, modalities=("text",)) as session:
        session.ask()
        written = _told("a question in text", session.done())
    after = settled(server)
    rows = [
        *_compare(after - before, [*turns, written], [waited, *heard_waits]),
        Row("sessions, idle", after.sum("vllm:omni_sessions"), 0),
        *idle_rows(after),
    ]
    print(f"\n{table(rows)}\n")
    return rows


def _committed(server: Server) -> tuple[float, Turn]:
    """The client says when it has spoken, and what it played."""
    with Session(server.url) as session:
        session.speak()
        session.commit()
        turn = _told("speech, then a commit", session.done())
        session.acknowledge(turn)
    assert turn.first_audio_at is not None, "it was not answered in sound"
    return turn.first_audio_at - session.asked_at, turn


def _interrupted(server: Server) -> tuple[list[float], list[Turn]]:
    """The server hears when it has spoken, and that it speaks over the answer."""
    with Session(server.url, detects_voice=True) as session:
        session.speak()
        session.be_silent(1.0)
        session.acknowledge(session.audio(), 100)
        session.speak()
        session.be_silent(1.0)
        _told("speech that is interrupted", session.done())
        _told("the speech that interrupted it", session.done(2))
    ends = [event["at"] for event in session.events("input_audio_buffer.speech_stopped")]
    firsts = [turn.first_audio_at for turn in session.turns]
    waits = [first - end for first, end in zip(firsts, ends, strict=True) if first is not None]
    return waits, session.turns


def _told(title: str, turn: Turn) -> Turn:
    seconds = turn.samples / turn.sample_rate
    print(f"  {title:<30} {turn.status or 'goes on'}, {seconds:5.2f} s of audio", flush=True)
    return turn


def _compare(gained: Scrape, turns: list[Turn], waits: list[float]) -> list[Row]:
    samples = sum(turn.samples for turn in turns)
    complete = [turn for turn in turns if turn.status == "completed"]
    barge_ins = [turn for turn in turns if turn.reason == "turn_detected"]
    stopped = sum(
        gained.sum("vllm:omni_turns_total", outcome=outcome) for outcome in ("stop", "length")
    )
    barged = gained.sum("vllm:omni_turns_total", outcome="barge_in")
    row = functools.partial(gained_row, gained)
    return [
        row("sessions_closed_total", 3),
        row("turns_total", len(turns)),
        Row("turns_total stop and length", stopped, len(complete)),
        Row("turns_total barge_in", barged, len(barge_ins)),
        row("turn_latency_seconds count", len(waits)),
        row("turn_latency_seconds sum", sum(waits), apart=waits),
        row("turn_endpoint_delay_seconds count", 2),
        row("barge_in_reaction_seconds count", len(barge_ins)),
        row("audio_frames_total", samples),
        row("turn_audio_samples_total", samples),
        row("requests_success_total", len(turns)),
        row("metrics_missing_samples_total", 0),
    ]
