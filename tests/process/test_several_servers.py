"""Several API servers: what their files add up to, while they run and when one has ended.

Each server is a process of its own, named as the engine names it, in which the plugin was started;
the test tells them what happens and reads the files as a scrape would.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tests.unit.test_transfers import received, sent
from vllm_omni_metrics_plugin import api_servers, catalog
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.scrape import Scrape, parse

SECONDS = 60.0

#: Does what it is told, one line at a time, and says when it is done.
SERVER = """
import logging, multiprocessing, os, sys
multiprocessing.current_process().name = sys.argv[1]
logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
from vllm_omni_metrics_plugin.startup import start
from vllm_omni_metrics_plugin.patches import process
process.installed_versions = lambda: {"vllm": "0.30.0", "vllm-omni": "0.30.0"}
state = start(os.environ)
from vllm_omni_metrics_plugin.hooks import *
from vllm_omni_metrics_plugin.hooks import plugins
from vllm_omni_metrics_plugin.testing import make_event

def tell(kind, **fields):
    getattr(plugins.hooks, hook_of[kind])(make_event(kind, **fields))

from vllm_omni_metrics_plugin.testing import EVENTS
hook_of = {kind: name for name, kind in EVENTS.items()}
def arrive(name):
    tell(RequestArrived, request_id=name)
submitted = set()
def submit(name):
    tell(StageSubmitted, request_id=name, model_name="tiny", first=name not in submitted)
    submitted.add(name)
    tell(StageStarted, request_id=name, model_name="tiny")
def finish(name):
    tell(AudioFinished, request_id=name, replica=0)
    tell(RequestFinished, request_id=name, dispatched=name in submitted)
def build_engine():
    state.transfers.model_name = "tiny"
    for prepare in (*state.before_engine, *state.after_engine):
        prepare()
    tell(ReplicaJoined, replica=0)

print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

#: Gives a server vLLM's kind of families, in the plugin's classes.
ENGINE_FAMILIES = """
from vllm_omni_metrics_plugin.patches.engine_families.relabel import Engines, relabelled; \
engines = Engines(); engines.add(0, "0", "0"); engines.add(1, "1", "0"); \
Gauge, Counter, Histogram = relabelled(engines); \
tokens = Counter("vllm:generation_tokens", "-", ["model_name", "engine"]); \
running = Gauge("vllm:num_requests_running", "-", ["model_name", "engine"], \
    multiprocess_mode="mostrecent"); \
latency = Histogram("vllm:e2e_request_latency_seconds", "-", ["model_name", "engine"]); \
lora = Gauge("vllm:lora_requests_info", "-", ["max_lora"], multiprocess_mode="sum")
"""


class Process:
    """One process with the plugin in it."""

    def __init__(self, name: str, environment: dict[str, str], log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        self.pid = self._process.pid
        self._answer("ready")

    def does(self, *lines: str) -> None:
        """Return when each line was executed."""
        assert self._process.stdin is not None
        for line in lines:
            self._process.stdin.write(line.strip() + "\n")
            self._process.stdin.flush()
            self._answer("done")

    def _answer(self, expected: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == expected, self.log.read_text()

    def ends(self) -> None:
        """As a server does that was asked to."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(SECONDS) == 0, self.log.read_text()

    def is_killed(self) -> None:
        self._process.kill()
        self._process.wait(SECONDS)


class Servers:
    """Starts processes that share a folder, and reads it."""

    def __init__(self, tmp_path: Path, stack: ExitStack) -> None:
        self._stack = stack
        self.logs = tmp_path
        self.folder = tmp_path / "numbers"
        self.folder.mkdir()
        self.channel = Endpoint(f"ipc://{tmp_path / 'events'}")
        self.environment = {
            "PYTHONPATH": ":".join(sys.path),
            "VLLM_OMNI_METRICS": "1",
            # The example packages are on the path when their own tests run in this session.
            "VLLM_OMNI_METRICS_HOOKS": "",
            "VLLM_OMNI_METRICS_CHANNEL": self.channel.address,
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder),
        }

    def start(self, name: str) -> Process:
        process = Process(name, self.environment, self.logs / f"{name}.log")
        self._stack.callback(process.is_killed)
        return process

    def scrape(self) -> Scrape:
        """What any of the servers would answer."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return parse(generate_latest(registry).decode())
            except (struct.error, RuntimeError):  # a process is making its file, or enlarging it
                assert time.monotonic() < deadline

    def until(self, condition: Callable[[Scrape], bool]) -> Scrape:
        deadline = time.monotonic() + SECONDS
        while not condition(seen := self.scrape()):
            assert time.monotonic() < deadline, f"it did not come about:\n{seen}"
            time.sleep(0.05)
        return seen


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


@pytest.fixture
def pair(servers: Servers) -> tuple[Process, Process]:
    """Two API servers with their engine clients."""
    both = servers.start("ApiServer_0"), servers.start("ApiServer_1")
    for server in both:
        server.does("build_engine()")
    return both


def name(stem: str) -> str:
    return catalog.BY_STEM[stem.removesuffix("_count").removesuffix("_sum")].name + (
        stem[stem.rindex("_") :] if stem.endswith(("_count", "_sum")) else ""
    )


END = pytest.mark.parametrize("end", [Process.ends, Process.is_killed], ids=["ends", "killed"])


@END
def test_counters_and_histograms_are_the_sum_of_all_servers_that_ever_were(
    servers: Servers, pair: tuple[Process, Process], end: Callable[[Process], None]
) -> None:
    for count, server in zip((1, 2), pair, strict=True):
        for number in range(count):
            server.does(f"arrive('{number}')", f"submit('{number}')", f"finish('{number}')")

    def assert_sums(requests: int) -> None:
        seen = servers.scrape()
        assert seen.sum(name("requests_success_total"), finished_reason="stop") == requests
        assert seen.sum(name("e2e_request_latency_seconds_count")) == requests
        assert seen.sum(name("audio_duration_seconds_sum")) == 2.0 * requests
        bucket = f"{name('audio_duration_seconds')}_bucket"
        assert seen.sum(bucket, le="+Inf") == seen.sum(bucket, le="2.0") == requests
        assert seen.sum(bucket, le="1.5") == 0

    assert_sums(3)
    end(pair[1])
    assert_sums(3)
    pair[0].does("arrive('late')", "submit('late')", "finish('late')")
    assert_sums(4)


def test_gauges_are_the_sum_of_the_servers_that_run(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    pair[0].does("arrive('a')", "submit('a')", "arrive('b')")
    pair[1].does("arrive('c')", "submit('c')")
    seen = servers.scrape()
    assert seen.value(name("num_requests_running"), model_name="tiny") == 2
    assert seen.value(name("num_requests_waiting"), model_name="tiny") == 1

    pair[1].ends()
    seen = servers.scrape()
    assert seen.value(name("num_requests_running"), model_name="tiny") == 1
    assert seen.value(name("num_requests_waiting"), model_name="tiny") == 1


def test_no_family_of_ours_is_split_by_process(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    for server, peak in zip(pair, (300, 200), strict=True):
        server.does(
            "listener = type('L', (), {'omni_request_arrived': hookimpl(lambda self, event: 0)})",
            "plugins.register(listener(), 'third_party')",
            f"work = DiffusionWork(steps=1, peak_memory_bytes={peak})",
            "tell(StageFinished, model_name='tiny', replica=0, diffusion=work)",
            *("arrive('a')", "submit('a')", "finish('a')"),
        )
    seen = servers.until(lambda seen: bool(seen.names(name("metrics_hook_calls_total"))))
    ours = seen.names(catalog.PREFIX)
    absent = {family.name for family in catalog.BACKLOG}
    absent.add(name("slo_target_ratio"))  # nobody judges
    absent |= {family.name for family in catalog.SESSIONS if family.kind == "gauge"}
    assert ours > {family.name for family in catalog.FAMILIES if family.kind == "gauge"} - absent
    assert not ours & absent
    assert [n for n in ours for labels in seen.label_sets(n) if "pid" in labels] == []
    assert seen.sum(name("peak_memory_bytes")) == 300, "each has its own requests of one replica"


def test_information_is_shown_once_and_turns_to_0_when_it_no_longer_holds(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    assert set(servers.scrape().by(name("stage_info"), "replica").items()) == {("0", 1.0)}
    patches = servers.scrape().by(name("metrics_patch_info"), "patch")
    assert set(patches.values()) == {1.0}

    pair[0].does("tell(ReplicaLeft, replica=0)")
    assert servers.scrape().sum(name("stage_info")) == 1, "the other server still has it"
    pair[1].does("tell(ReplicaLeft, replica=0)")
    assert servers.scrape().sum(name("stage_info")) == 0
    for server in pair:
        assert "UserWarning" not in server.log.read_text()


def test_series_stand_at_0_before_the_first_request_of_any_server(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    for server in pair:
        server.does(
            "tell(ReplicaJoined, stage=0, replica=0, feeds=(1,))",
            "tell(ReplicaJoined, stage=1, replica=0, makes=('audio',))",
        )
    before = servers.scrape()
    failed = {"model_name": "tiny", "finished_reason": "error"}
    assert before.value(name("requests_success_total"), **failed) == 0
    edge = {"from_stage": "0", "from_replica": "0", "to_stage": "1", "to_replica": "0"}
    hops = before.value(name("transfer_size_bytes_count"), model_name="tiny", **edge)
    assert hops == 0

    pair[1].does(
        "arrive('b')", "tell(RequestFinished, outcome='error')", "tell(MediaPacket, replica=0)"
    )
    after = servers.scrape()
    assert after.value(name("requests_success_total"), **failed) == 1
    assert {(s.name, *s.labels.items()) for s in after} == {
        (s.name, *s.labels.items()) for s in before
    }


def test_counts_of_hooks_come_without_being_asked_for(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    events = name("metrics_events_total")
    pair[0].does("finish('a')")
    pair[1].does("finish('b')", "finish('c')")
    servers.until(lambda seen: seen.sum(events, hook="omni_request_finished") == 3)
    pair[1].does("finish('d')")
    pair[1].ends()
    assert servers.scrape().sum(events, hook="omni_request_finished") == 4, "its last words"


#: In a line that a server does.
ERRORS = "from vllm_omni_metrics_plugin.internal_errors import errors"


def test_internal_errors_come_without_being_asked_for(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    pair[0].does(ERRORS, "errors.add('reading')")
    pair[1].does(ERRORS, "errors.add('reading', 2)", "errors.add('writing')")
    errors = name("metrics_internal_errors_total")
    servers.until(lambda seen: seen.by(errors, "place") == {"reading": 3, "writing": 1})


def test_what_is_counted_while_a_server_ends_is_published(servers: Servers) -> None:
    server = servers.start("ApiServer_0")
    server.does(ERRORS, "import atexit", "atexit.register(errors.add, 'closing the channel')")
    server.does("build_engine()", "errors.add('serving')")
    server.ends()
    errors = name("metrics_internal_errors_total")
    assert servers.scrape().by(errors, "place") == {"serving": 1, "closing the channel": 1}


def test_process_that_only_starts_the_servers_has_no_share_in_their_numbers(
    servers: Servers,
) -> None:
    servers.start("MainProcess")
    assert list(servers.folder.iterdir()) == []


# vLLM's own families


@END
def test_engine_families_add_up_and_their_gauges_are_the_latest(
    servers: Servers, pair: tuple[Process, Process], end: Callable[[Process], None]
) -> None:
    for server in pair:
        server.does(ENGINE_FAMILIES)
    pair[0].does("tokens.labels('m', 1).inc(5)", "running.labels('m', 1).set(3)")
    pair[1].does("tokens.labels('m', 1).inc(7)", "running.labels('m', 1).set(2)")
    for server in pair:
        server.does("latency.labels('m', 1).observe(0.5)", "lora.labels('2').set(1000)")
    end(pair[0])

    labels = {"model_name": "m", "stage": "1", "replica": "0"}
    seen = servers.scrape()
    assert seen.value("vllm:generation_tokens_total", **labels) == 12
    assert seen.value("vllm:e2e_request_latency_seconds_count", **labels) == 2
    assert seen.value("vllm:num_requests_running", **labels) == 2, "one engine, not two"
    assert seen.value("vllm:lora_requests_info", max_lora="2") == 1000, "a time does not add up"


def test_replica_that_left_keeps_its_counts_and_its_gauges_are_0(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    for server in pair:
        server.does(
            ENGINE_FAMILIES, "tokens.labels('m', 1).inc(5)", "bound = running.labels('m', 1)"
        )
        server.does("bound.set(3)", "engines.withdraw('1', '0')")
        server.does("bound.set(4)", "engines.withdraw('1', '0')")  # late numbers
    seen = servers.scrape()
    assert seen.sum("vllm:generation_tokens_total", stage="1") == 10
    assert seen.sum("vllm:num_requests_running", stage="1") == 0

    pair[0].does("engines.restore('1', '0')", "tokens.labels('m', 1).inc()", "bound.set(1)")
    seen = servers.scrape()
    assert seen.sum("vllm:generation_tokens_total", stage="1") == 11
    assert seen.sum("vllm:num_requests_running", stage="1") == 1


# Transfers


@END
def test_another_server_hears_of_transfers_when_the_one_that_did_has_ended(
    servers: Servers, pair: tuple[Process, Process], end: Callable[[Process], None]
) -> None:
    sender = Sender(servers.channel)
    counts = [name("transfer_size_bytes_count"), name("transfer_rx_decode_time_ms_count")]

    def hop(key: str) -> None:
        sender.send(sent(key))
        sender.send(received(key))

    try:
        for number in range(3):
            hop(str(number))
        before = servers.until(lambda seen: all(seen.sum(count) == 3 for count in counts))
        assert before.sum(name("metrics_missing_samples_total")) == 0
        end(pair[0])
        # What is sent before the sender has noticed may be lost, so more than one.
        deadline = time.monotonic() + SECONDS
        while not all(servers.scrape().sum(count) > 3 for count in counts):
            assert time.monotonic() < deadline, pair[1].log.read_text()
            hop(f"after {time.monotonic()}")
            time.sleep(0.1)
    finally:
        sender.close()
    assert "listens for the stage engines now" in pair[1].log.read_text()


def test_servers_that_end_one_after_the_other_leave_no_socket(
    servers: Servers, pair: tuple[Process, Process]
) -> None:
    assert servers.channel.path is not None
    assert servers.channel.path.exists()
    for server in pair:
        server.ends()
    assert not servers.channel.path.exists()
    assert "Traceback" not in "".join(server.log.read_text() for server in pair)


# What this mode cannot do


def test_limits_are_logged_once_for_all_servers(pair: tuple[Process, Process]) -> None:
    first, second = (server.log.read_text() for server in pair)
    for limit in api_servers.limits():
        assert first.count(limit.reason) == 1
        assert limit.reason not in second


def test_limits_name_families_that_there_are() -> None:
    ours = {family.name for family in catalog.FAMILIES}
    for limit in api_servers.limits():
        assert limit.families
        for family in limit.families:
            assert "*" in family or family in ours
        assert limit.reason
        assert not limit.reason.endswith("."), "it stands in tables and lists"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"PROMETHEUS_MULTIPROC_DIR": "/somewhere"}, True),
        ({"prometheus_multiproc_dir": "/somewhere"}, True),
    ],
)
def test_mode_is_what_the_client_library_takes_it_for(environ: dict[str, str], on: bool) -> None:
    assert api_servers.is_on(environ) is on
    if on:
        assert api_servers.folder(environ) == Path("/somewhere")
