"""Third parties' hooks on a real server under load: hostile ones, the examples, and the docs' own.

One server for all of them. What is hostile is let loose and taken back while it runs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testbed.clients import audio
from testbed.pages.fences import blocks
from testbed.pages.places import DOCS
from testbed.paths import EXAMPLES, ROOT
from testbed.server import Server, binary, free_port
from tests.e2e.conftest import ON, is_idle, observing, outcomes, settled
from tests.otlp import Receiver
from vllm_omni_metrics_plugin.hooks.listener import FAULTS_IN_A_ROW
from vllm_omni_metrics_plugin.scrape import scrape

REQUESTS = 6
#: How often a batch calls each hook; packets are the engine's to divide up.
CALLS = {
    "omni_request_arrived": REQUESTS,
    "omni_stage_submitted": 2 * REQUESTS,
    "omni_stage_finished": 2 * REQUESTS,
    "omni_audio_finished": REQUESTS,
    "omni_request_finished": REQUESTS,
}
FAULTY = ["raises", "exits", "recurses", "calls_its_hook", "returns_a_coroutine"]
HARMLESS = ["returns_garbage", "sleeps", "hangs"]


class Response(NamedTuple):
    """What a client can tell about one answer."""

    status: int
    size: int
    digest: str


def ask(url: str, number: int, **headers: str) -> Response:
    """Speech with a seed, which makes the answer the same every time; every second one streams."""
    stream = {"stream": True, "stream_format": "audio"} if number % 2 else {}
    body = {
        "input": f"text {number}",
        "voice": "vivian",
        "language": "English",
        "max_new_tokens": 10 + number,
        "response_format": "pcm",
        "seed": number,
        **stream,
    }
    request = urllib.request.Request(
        f"{url}/v1/audio/speech",
        json.dumps(body).encode(),
        {"content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        sound = response.read()
    return Response(response.status, len(sound), hashlib.sha256(sound).hexdigest())


def load(url: str) -> list[Response]:
    """One request alone, whose every bit is the same each time, then the others, three at once."""
    others = [functools.partial(ask, url, number) for number in range(1, REQUESTS)]
    return [ask(url, 0), *audio.together(others, at_once=3)]


class Hooks:
    """The server's hook plugins, governed from outside."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def __call__(self, command: str) -> Any:
        request = urllib.request.Request(f"{self._url}/{command}", b"")
        with urllib.request.urlopen(request, timeout=90) as response:
            return json.loads(response.read())

    def accounts(self, plugin: str) -> dict[str, dict[str, Any]]:
        """By hook."""
        accounts = self("report")["accounts"]
        return {account["hook"]: account for account in accounts if account["plugin"] == plugin}


class Served(NamedTuple):
    server: Server
    hooks: Hooks
    folder: Path
    #: What the client got before anything hostile was there.
    undisturbed: list[Response]


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def served(
    logs: Path, tmp_path_factory: pytest.TempPathFactory, collector: Receiver, pauses: Path
) -> Iterator[Served]:
    """A server with the hostile package, the walk's and the examples' installed beside it."""
    folder = tmp_path_factory.mktemp("hooks")
    walk = folder / "late_starts.py"
    walk.write_text(blocks(DOCS / "tutorial" / "write-a-hook.md")["late_starts.py"])
    packages = folder / "packages"
    for name in ("hostile", "stages"):
        install(copy_of(ROOT / "tests" / "e2e" / name, folder / name), packages)
    port = free_port()
    path = (str(packages), os.environ.get("PYTHONPATH"), str(EXAMPLES))
    environment = {
        **ON,
        "VLLM_OMNI_METRICS_HOOKS": f"*,{walk}",
        "WHERE_HOOKS_ARE": str(folder / "where"),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "HOSTILE_HOOKS_PORT": str(port),
        "VLLM_OMNI_CPU_PAUSES": str(pauses),
        "VLLM_OMNI_ACCESS_LOG": str(folder / "access.jsonl"),
        "VLLM_OMNI_METRICS_OTLP_METRICS": "1",
        "VLLM_OMNI_METRICS_HEADERS": "authorization:hash,x-team",
        "VLLM_OMNI_USAGE": str(folder / "usage.sqlite"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with Server("tts", env=environment, log_path=logs / "hooks.log") as server:
        yield Served(server, Hooks(port), folder, load(server.url))


@pytest.fixture(autouse=True)
def _idle(served: Served) -> None:
    """A response ends for its client before the server is done with it; no test sees another's."""
    seen = settled(served.server, is_idle)
    assert is_idle(seen), seen


def copy_of(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def install(source: Path, target: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [binary("python"), "-m", "pip", "install", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def same(responses: list[Response], undisturbed: list[Response]) -> bool:
    """Every bit of the one that was alone; of the others, which the engine batches, the length."""
    if responses[0] != undisturbed[0]:
        return False
    return [(r.status, r.size) for r in responses] == [(r.status, r.size) for r in undisturbed]


@pytest.mark.parametrize("company", ["alone", "next to a good one"])
@pytest.mark.parametrize("fault", [*FAULTY, *HARMLESS])
def test_hostile_listener_changes_no_response_and_no_count(
    served: Served, fault: str, company: str
) -> None:
    server, hooks, _, undisturbed = served
    before = {hook: account["calls"] for hook, account in hooks.accounts(fault).items()}
    errors_before = {hook: account["errors"] for hook, account in hooks.accounts(fault).items()}
    with_good = company != "alone"
    if with_good:
        hooks("register?fault=good")
    hooks(f"register?fault={fault}")  # the later one is called first
    try:
        with observing(server) as seen:
            responses = load(server.url)
        assert server.is_healthy()
        hooks("release")
        assert hooks("flush")
        report = hooks("report")
    finally:
        hooks(f"unregister?name={fault}")
        if with_good:
            hooks("unregister?name=good")

    assert same(responses, undisturbed), responses
    assert sum(outcomes(seen.gained).values()) == REQUESTS
    frames = sum(response.size for response in responses) // 2
    assert seen.gained.sum("vllm:omni_audio_frames_total") == frames

    if with_good:
        packets = report["heard"].pop("omni_media_packet")
        assert report["heard"] == CALLS
        assert report["frames"] == frames
    accounts = {a["hook"]: a for a in report["accounts"] if a["plugin"] == fault}
    for hook, account in accounts.items():
        calls = account["calls"] - before.get(hook, 0)
        errors = account["errors"] - errors_before.get(hook, 0)
        expected = CALLS.get(hook, packets if with_good else None)
        if fault in HARMLESS:
            assert (errors, account["is_on"]) == (0, True), account
            assert expected in (None, calls), account
        else:
            assert calls == errors, account
            assert account["is_on"] == (errors < FAULTS_IN_A_ROW), account
            assert expected is None or errors == min(expected, FAULTS_IN_A_ROW), account
    assert set(accounts) == {*CALLS, "omni_media_packet"}
    if fault == "sleeps":
        assert 1 <= report["inline"] < 10, "then it sleeps on a thread of its own"
    if fault == "hangs":
        assert report["inline"] == 0


def test_stall_is_told_while_the_listener_hears_nothing(served: Served, pauses: Path) -> None:
    served.hooks("register?fault=stalls")
    try:
        pauses.write_text("0 4")
        answer = audio.speech(served.server.url, tokens=20, stream="audio")
        settled(served.server, is_idle)
        heard = served.hooks("report")["stalls"]
    finally:
        pauses.unlink(missing_ok=True)
        served.hooks("unregister?name=stalls")
    packets = [about for kind, about in heard if kind == "packet"]
    [stall] = [about for kind, about in heard[:2] if kind == "stall"]
    first, second = packets[:2]
    assert stall["played_seconds"] == pytest.approx(first["seconds"])
    assert stall["stalled_at"] == pytest.approx(first["left_at"] + first["seconds"])
    assert stall["stalled_at"] < stall["told_at"] < second["left_at"], "not when it was over"
    assert sum(packet["seconds"] for packet in packets) == pytest.approx(answer.audio_seconds)


def test_faults_are_logged_once_with_the_plugins_name_and_switching_off_once(
    served: Served,
) -> None:
    hooks, log = served.hooks, served.server.log_path
    earlier = len(log.read_text())
    hooks("register?fault=raises")
    try:
        load(served.server.url)
        settled(served.server, is_idle)
        accounts = hooks.accounts("raises")
    finally:
        hooks("unregister?name=raises")
    lines = log.read_text()[earlier:].splitlines()
    failed = [line for line in lines if "hook plugin 'raises' failed in" in line]
    off = [line for line in lines if "'raises' failed 10 times in a row" in line]
    hooks_named = [re.findall(r"in (omni_\w+)", line)[0] for line in failed]
    assert sorted(hooks_named) == sorted({*CALLS, "omni_media_packet"}), failed
    switched_off = {hook for hook, account in accounts.items() if not account["is_on"]}
    assert switched_off >= {"omni_stage_submitted", "omni_stage_finished"}, "they reach ten faults"
    assert sorted(re.findall(r"in (omni_\w+)", line)[0] for line in off) == sorted(switched_off)
    assert all("switch_on('raises')" in line for line in off)


def test_errors_are_on_the_servers_own_metrics(served: Served) -> None:
    seen = scrape(served.server.url)
    for hook, account in served.hooks.accounts("raises").items():
        labels = {"plugin": "raises", "hook": hook}
        assert seen.value("vllm:omni_metrics_hook_errors_total", **labels) == account["errors"]
        assert seen.value("vllm:omni_metrics_hook_calls_total", **labels) == account["calls"]
        assert seen.value("vllm:omni_metrics_hook_listening", **labels) == 0


def test_packages_that_cannot_be_loaded_are_skipped_by_name(served: Served) -> None:
    skipped = [
        line for line in served.server.log_path.read_text().splitlines() if "skipped" in line
    ]
    for name, why in (
        ("broken_import", "ModuleNotFoundError"),
        ("misspelt", "there is no hook omni_request_finish; did you mean omni_request_finished?"),
    ):
        assert any(f"hook plugin '{name}'" in line and why in line for line in skipped), skipped


def test_hook_plugins_are_in_the_processes_that_they_ask_for_and_no_other(served: Served) -> None:
    lines = [line.split() for line in (served.folder / "where").read_text().splitlines()]

    def noted(plugin: str, what: str) -> set[tuple[str, str]]:
        return {(role, pid) for name, event, role, pid in lines if (name, event) == (plugin, what)}

    [(_, server)] = noted("in_the_server", "imported")
    assert noted("in_the_server", "called") == {("server", server)}
    stages = noted("in_the_stages", "called")
    assert {role for role, _ in stages} == {"stage_engine"}
    assert len(stages) == 2, "a process for each stage"
    assert {pid for _, pid in noted("in_the_stages", "imported")} == {pid for _, pid in stages}


# The file of docs/tutorial/write-a-hook.md, and the command


def test_hook_of_the_walk_is_seen_on_metrics_and_in_the_command(served: Served) -> None:
    server = served.server
    before = scrape(server.url)
    assert audio.speech(server.url, stream="audio").status == 200
    gained = scrape(server.url) - before
    assert gained.value("late_starts_total", model=server.model) == 1

    command = [binary("vllm-omni-metrics"), "hooks", "--url", server.url]
    done = subprocess.run(
        command, capture_output=True, text=True, env=server.environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {tuple(line.split()[:2]): line.split() for line in done.stdout.splitlines() if line}
    walk = lines["omni_media_packet", "late_starts"]
    assert int(walk[2]) >= 1, walk
    assert walk[3:] == ["0", "0", "listening"]
    assert "misspelt" in done.stderr


# The example packages


def test_access_log_has_one_line_per_request_with_the_clients_numbers(served: Served) -> None:
    path = served.folder / "access.jsonl"

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    assert served.hooks("flush")
    before = len(lines())
    kinds: tuple[tuple[int, audio.Stream | None], ...]
    kinds = ((5, "audio"), (12, None), (20, "sse"))
    calls = [
        functools.partial(audio.speech, served.server.url, tokens=tokens, stream=stream)
        for tokens, stream in kinds
    ]
    answers = audio.together(calls, at_once=3)
    assert eventually(lambda: len(lines()) == before + 3)
    written = lines()[before:]
    frames = sorted(line["audio"][0]["samples"] for line in written)
    assert frames == sorted(answer.samples for answer in answers)
    for line in written:
        assert line["outcome"] in ("stop", "length")
        assert (line["endpoint"], line["status"]) == ("/v1/audio/speech", 200)
        assert [stage["stage"] for stage in line["stages"]] == [0, 1]
        assert 0 < line["queue_seconds"] < line["end_to_end_seconds"]
        assert line["packets"] >= 1


def test_usage_of_each_customer_is_what_it_got(served: Served) -> None:
    server, path = served.server, served.folder / "usage.sqlite"

    def rows() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as database:
            columns = "customer, outcome, endpoint, audio_seconds, tokens_in, tokens_out, images"
            return database.execute(f"select {columns} from requests order by ended_at").fetchall()

    assert served.hooks("flush")
    calls = served.hooks.accounts("usage_ledger")["omni_request_finished"]["calls"]
    assert eventually(lambda: len(rows()) == calls), (len(rows()), calls)
    customers = {"sk-first-secret": [1, 2], "sk-second-secret": [3, 4, 5]}
    asked = [
        (key, functools.partial(ask, server.url, number, authorization=f"Bearer {key}"))
        for key, numbers in customers.items()
        for number in numbers
    ]
    with observing(server) as seen:
        answers = audio.together([call for _, call in asked], at_once=3)
    left = audio.speech(server.url, tokens=40, stream="audio", hang_up_after_packets=1)
    assert eventually(lambda: len(rows()) == calls + len(asked) + 1)

    written = rows()[calls:]
    got = sorted(
        (hashlib.sha256(key.encode()).hexdigest()[:16], answer.size / 2 / 24_000)
        for (key, _), answer in zip(asked, answers, strict=True)
    )
    used = sorted((row for row in written if row[0] is not None), key=lambda row: (row[0], row[3]))
    assert [row[0] for row in used] == [customer for customer, _ in got]
    assert [row[3] for row in used] == pytest.approx([seconds for _, seconds in got])
    for row in used:
        assert row[1] in ("stop", "length")
        assert (row[2], row[6]) == ("/v1/audio/speech", 0)
    tokens = ("vllm:omni_prompt_tokens_total", "vllm:omni_generation_tokens_total")
    assert [sum(row[n] for row in used) for n in (4, 5)] == [
        seen.gained.by(family, "stage").get("0", 0.0) for family in tokens
    ]
    [unknown] = [row for row in written if row[0] is None]
    assert unknown[3] >= left.audio_seconds > 0, "whoever leaves has used what it got"
    assert "-secret" not in server.log_path.read_text()
    assert not any(b"-secret" in file.read_bytes() for file in path.parent.glob("usage.sqlite*"))


def test_opentelemetry_collector_receives_every_request(
    served: Served, collector: Receiver
) -> None:
    assert served.hooks("flush")
    [finished] = [
        account["calls"]
        for hook, account in served.hooks.accounts("otlp_metrics").items()
        if hook == "omni_request_finished"
    ]

    def received() -> int:
        points = collector.points("gen_ai.server.request.duration")
        return sum(count for _, count, _ in points)

    assert eventually(lambda: received() == finished), (received(), finished)
    [attributes] = [
        attributes
        for attributes, _, _ in collector.points("vllm_omni.server.audio.duration")
        if attributes["gen_ai.request.model"] == served.server.model
    ]
    assert attributes["gen_ai.output.type"] == "speech"
