"""What the ledger says that requests used: all of it, once, and whatever happens to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import vllm_omni_usage_ledger
from vllm_omni_usage_ledger import UsageLedger, main

from testbed.paths import ROOT
from vllm_omni_metrics_plugin.hooks import (
    Configured,
    Event,
    ImageFinished,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageSummary,
    VideoFinished,
)
from vllm_omni_metrics_plugin.request_headers import CarriedHeader
from vllm_omni_metrics_plugin.settings import Settings
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request

CARRIED = (CarriedHeader("authorization", hashed=True), CarriedHeader("x-team", hashed=False))
HEADERS = (("authorization", "2bb80d537b1da3e3"), ("x-team", "red"))
#: Ends as many requests as it is told to, and says how many; all of them until it is killed.
PROCESS = """
import itertools, sys, time
from vllm_omni_metrics_plugin.hooks import Configured, RequestFinished
from vllm_omni_metrics_plugin.testing import make_event
from vllm_omni_usage_ledger import UsageLedger

path, name, most = sys.argv[1:]
ledger = UsageLedger({"VLLM_OMNI_USAGE": path})
ledger.omni_configured(make_event(Configured))
for number in itertools.count() if most == "all" else range(int(most)):
    ledger.omni_request_finished(make_event(RequestFinished, request_id=f"{name}-{number:09}"))
    if number % 10 == 0:
        print(number, flush=True)
        time.sleep(0.001)
"""


def configured(**about: Any) -> Configured:
    settings = Settings(enabled=True, headers=CARRIED)
    return make_event(Configured, **{"settings": settings, **about})


def stage(number: int, tokens_in: int | None, tokens_out: int | None) -> StageSummary:
    return StageSummary(
        stage=number, replica=0, submitted_at=100.0, tokens_in=tokens_in, tokens_out=tokens_out
    )


def ended(request_id: str = "request-1-0123abcd", **about: Any) -> RequestFinished:
    return make_event(RequestFinished, **{"request_id": request_id, "headers": HEADERS, **about})


ARRIVED = make_event(RequestArrived)


def packet(samples: int, sample_rate: int | None = 24_000, **about: Any) -> MediaPacket:
    return make_event(MediaPacket, samples=samples, sample_rate=sample_rate, **about)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


Start = Callable[..., UsageLedger]


@pytest.fixture
def start(omni_hooks: HookHarness, path: Path) -> Iterator[Start]:
    """Registers a ledger in a server; it commits when it is closed."""
    started: list[UsageLedger] = []

    def registered(event: Configured | None = None, **environ: str) -> UsageLedger:
        ledger = omni_hooks.register(UsageLedger({"VLLM_OMNI_USAGE": str(path), **environ}))
        started.append(ledger)
        omni_hooks.fire(configured() if event is None else event)
        return ledger

    yield registered
    for ledger in started:
        ledger.close()


@pytest.fixture(autouse=True)
def _at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_omni_usage_ledger, "COMMIT_SECONDS", 3600.0)


def rows(path: Path, columns: str = "*", table: str = "requests") -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"select {columns} from {table}").fetchall()


def ids(path: Path) -> list[str]:
    """Of the requests that are committed; none while there is no database."""
    if not path.exists() or not rows(path, "name", "sqlite_master where name = 'requests'"):
        return []
    return [request_id for (request_id,) in rows(path, "request_id")]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# What a row says


def test_row_has_all_that_a_request_used(omni_hooks: HookHarness, start: Start, path: Path) -> None:
    ledger = start()
    before = time.time()
    omni_hooks.fire(
        ARRIVED,
        packet(24_000, index=0),
        packet(12_000, index=1),
        ended(
            endpoint="/v1/chat/completions",
            stages=(stage(0, 12, 25), stage(1, 0, 50)),
            images=(make_event(ImageFinished, images=2), make_event(ImageFinished, images=1)),
            videos=(make_event(VideoFinished, duration_seconds=4.5),),
        ),
    )
    ledger.close()
    [(request_id, ended_at, *row)] = rows(path)
    assert request_id == "request-1-0123abcd"
    assert before <= ended_at <= time.time()
    assert row == [
        *("2bb80d537b1da3e3", "tiny", "/v1/chat/completions", "stop"),
        *(12, 25, 1.5, 3, 4.5),
    ]


def test_request_that_made_nothing_used_0(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start()
    omni_hooks.fire(ARRIVED, ended())
    ledger.close()
    usage = "tokens_in, tokens_out, audio_seconds, images, video_seconds"
    assert rows(path, usage) == [(0, 0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("column", "events"),
    [
        ("tokens_in", [ended(stages=(stage(0, None, 25),))]),
        ("tokens_out", [ended(stages=(stage(0, 12, None), stage(1, 0, 50)))]),
        ("audio_seconds", [packet(1), packet(1, sample_rate=None), packet(1), ended()]),
        ("images", [ended(images=(make_event(ImageFinished, unknown_form=True),))]),
        ("video_seconds", [ended(videos=(make_event(VideoFinished, duration_seconds=None),))]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_known_is_null_and_never_0(
    omni_hooks: HookHarness, start: Start, path: Path, column: str, events: list[Event]
) -> None:
    ledger = start()
    omni_hooks.fire(ARRIVED, *events)
    ledger.close()
    assert rows(path, column) == [(None,)]
    assert rows(path, "requests, incomplete", "usage") == [(1, 1)]


def test_client_that_leaves_early_has_used_the_audio_that_it_got(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start()
    omni_hooks.fire(*speech_request("leaves", outcome="abort", packets=2, samples=12_000))
    omni_hooks.fire(*speech_request("stays", packets=4, samples=12_000))
    ledger.close()
    assert rows(path, "outcome, audio_seconds") == [("abort", 1.0), ("stop", 2.0)]
    assert ledger._audio == {}, "nothing of a request outlives it"


def test_video_is_no_audio(omni_hooks: HookHarness, start: Start, path: Path) -> None:
    ledger = start()
    omni_hooks.fire(ARRIVED, packet(24_000, modality="video"), ended())
    ledger.close()
    assert rows(path, "audio_seconds") == [(0.0,)]


def test_audio_of_a_request_whose_beginning_was_missed_is_not_known(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start()
    omni_hooks.fire(packet(24_000), ended())
    ledger.close()
    assert rows(path, "audio_seconds") == [(None,)]


def test_packet_after_the_end_leaves_nothing_behind(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start()
    omni_hooks.fire(ARRIVED, ended(), packet(24_000))
    assert ledger._audio == {}


def test_id_that_is_no_text_costs_no_other_request_its_row(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start()
    omni_hooks.fire(ended("a"), ended("b\ud800"), ended("c"))
    ledger.close()
    assert ids(path) == ["a", "b?", "c"]


# Who the customer is


@pytest.mark.parametrize(
    ("by", "headers", "customer"),
    [
        ("", HEADERS, "2bb80d537b1da3e3"),
        ("X-Team", HEADERS, "red"),
        ("x-team", HEADERS[:1], None),
        ("", HEADERS[1:], None),  # a team is nobody's key
        ("", (), None),
    ],
)
def test_customer_is_what_the_header_says(
    omni_hooks: HookHarness,
    start: Start,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    by: str,
    headers: Any,
    customer: str | None,
) -> None:
    ledger = start(VLLM_OMNI_USAGE_BY=by)
    omni_hooks.fire(ended(headers=headers))
    ledger.close()
    assert rows(path, "customer") == [(customer,)]
    assert caplog.messages == []


@pytest.mark.parametrize(("by", "carried"), [("x-customer", CARRIED), ("", ())])
def test_header_that_no_event_carries_is_named(
    omni_hooks: HookHarness,
    start: Start,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    by: str,
    carried: Any,
) -> None:
    settings = Settings(enabled=True, headers=carried)
    ledger = start(configured(settings=settings), VLLM_OMNI_USAGE_BY=by)
    [message] = caplog.messages
    assert f"VLLM_OMNI_USAGE_BY={by!r} is not among VLLM_OMNI_METRICS_HEADERS" in message
    omni_hooks.fire(ended(headers=()))
    ledger.close()
    assert rows(path, "customer") == [(None,)]


def test_engines_other_processes_write_nothing(
    omni_hooks: HookHarness, start: Start, path: Path
) -> None:
    ledger = start(configured(role="worker"))
    omni_hooks.fire(ARRIVED, packet(1), ended())
    ledger.close()
    assert not path.exists()
    assert (ledger._audio, list(ledger._ended)) == ({}, [])


# Once, whatever happens


def test_requests_are_committed_while_the_server_runs(
    omni_hooks: HookHarness, start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_omni_usage_ledger, "COMMIT_SECONDS", 0.01)
    ledger = start()
    for number in range(3):
        omni_hooks.fire(ended(f"r{number}"))
        expected = [f"r{n}" for n in range(number + 1)]
        assert eventually(lambda expected=expected: ids(path) == expected)  # type: ignore[misc]
    assert eventually(lambda: ledger._writing == []), "and are kept no longer"


def process(path: Path, name: str, most: str) -> subprocess.Popen[str]:
    folders = [ROOT, Path(vllm_omni_usage_ledger.__file__).parent]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", PROCESS, str(path), name, most]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def test_killed_process_has_written_all_up_to_its_last_commit(path: Path) -> None:
    """It commits every second; what is tested is that nothing before a commit is missing."""
    with process(path, "killed", "all") as killed:
        assert killed.stdout is not None
        lines: list[str] = []
        listening = threading.Thread(target=lines.extend, args=(killed.stdout,))
        listening.start()
        counts = [0]
        for _ in range(3):
            assert eventually(lambda: len(ids(path)) > counts[-1]), "it goes on committing"
            seen = ids(path)
            counts.append(len(seen))
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(60) == -signal.SIGKILL
        listening.join(60)

    assert rows(path, "*", "pragma_integrity_check") == [("ok",)]
    kept = ids(path)
    assert kept == [f"killed-{number:09}" for number in range(len(kept))], "none is left out"
    assert kept[: len(seen)] == seen, "what was committed stays"
    ended_at_most = int(lines[-1]) + 11
    assert len(kept) <= ended_at_most, "and none is there that did not end"


def test_several_servers_share_one_database(path: Path) -> None:
    servers = [process(path, f"server-{number}", "1000") for number in range(3)]
    for server in servers:
        server.communicate(timeout=120)
        assert server.returncode == 0
    assert Counter(name[:8] for name in ids(path)) == {
        "server-0": 1000,
        "server-1": 1000,
        "server-2": 1000,
    }


def test_requests_that_end_in_several_threads_are_all_there(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_omni_usage_ledger, "COMMIT_SECONDS", 0.001)
    ledger = start()

    def end(thread: int) -> None:
        for number in range(500):
            ledger.omni_request_finished(ended(f"{thread}-{number}"))

    threads = [threading.Thread(target=end, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert len(ids(path)) == 2000


def test_reopened_database_goes_on_and_no_request_is_in_it_twice(start: Start, path: Path) -> None:
    for requests in (["a", "b"], ["b", "c"]):
        ledger = start()
        for request_id in requests:
            ledger.omni_request_finished(ended(request_id))
        ledger.close()
    assert ids(path) == ["a", "b", "c"]


def test_database_that_cannot_be_written_is_tried_again_without_a_loss(
    omni_hooks: HookHarness,
    start: Start,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(vllm_omni_usage_ledger, "COMMIT_SECONDS", 0.01)
    later = path.parent / "later" / "usage.sqlite"
    ledger = start(VLLM_OMNI_USAGE=str(later))
    omni_hooks.fire(ended("before"))
    assert eventually(lambda: len(caplog.messages) == 1)
    assert "cannot be written, and is tried again: unable to open" in caplog.messages[0]
    omni_hooks.fire(ended("meanwhile"))
    later.parent.mkdir()
    assert eventually(lambda: len(caplog.messages) == 2)
    ledger.close()
    assert caplog.messages[1:] == [f"{later} is written again"]
    assert ids(later) == ["before", "meanwhile"]


@pytest.mark.parametrize("failures", [2, 99])
def test_last_commit_is_tried_a_few_times(
    omni_hooks: HookHarness,
    start: Start,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failures: int,
) -> None:
    opening = vllm_omni_usage_ledger._open
    left = [sqlite3.OperationalError("database is locked")] * failures

    def open_later(path: str) -> sqlite3.Connection:
        if left:
            raise left.pop()
        return opening(path)

    monkeypatch.setattr(vllm_omni_usage_ledger, "_open", open_later)
    ledger = start()
    omni_hooks.fire(ended("a"))
    ledger.close()
    assert ids(path) == (["a"] if failures == 2 else [])
    lost = [message for message in caplog.messages if "were lost" in message]
    assert lost == ([] if failures == 2 else [f"{path}: 1 requests were lost at the end"])


def test_requests_wait_in_bounded_number_and_the_log_counts_the_others(
    omni_hooks: HookHarness,
    start: Start,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(vllm_omni_usage_ledger, "MOST_WAITING", 3)
    ledger = start()
    for number in range(5):
        omni_hooks.fire(ended(f"r{number}"))
    ledger.close()
    assert ids(path) == ["r0", "r1", "r2"]
    assert caplog.messages == [f"{path}: 2 requests were lost, as 3 waited for it"]


# The report


def test_command_prints_usage_by_day_customer_and_model(
    omni_hooks: HookHarness, start: Start, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = start()
    omni_hooks.fire(ARRIVED, packet(24_000), ended(stages=(stage(0, 12, 25),)))
    omni_hooks.fire(ended("another", stages=(stage(0, 3, None),)))
    omni_hooks.fire(make_event(RequestArrived, request_id="nobody's"))
    omni_hooks.fire(ended("nobody's", model_name="other", headers=()))
    ledger.close()
    day = rows(path, "date(min(ended_at), 'unixepoch')")[0][0]
    with closing(sqlite3.connect(path)) as database, database:  # midnight may have been between
        database.execute("update requests set ended_at = (select min(ended_at) from requests)")
    assert main([str(path)]) == 0
    names = "requests,tokens_in,tokens_out,audio_seconds,images,video_seconds,incomplete"
    assert capsys.readouterr().out.splitlines() == [
        f"day,customer,model,{names}",
        f"{day},,other,1,0.0,0.0,0.0,0.0,0.0,0",
        f"{day},2bb80d537b1da3e3,tiny,2,15.0,25.0,1.0,0.0,0.0,1",
    ]
    assert main([str(path), "--since", "9999-01-01"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_command_names_a_file_that_is_not_there_and_makes_none(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(path)])
    assert f"{path} is not there" in capsys.readouterr().err
    assert not path.exists()
