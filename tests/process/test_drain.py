"""The drain as a preStop hook runs it, against a server that says what a test has it say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from testbed.server import HOST, free_port
from tests.deployed import DRAIN

QUIET_SECONDS = 0.5


def page(open_requests: int) -> bytes:
    running = min(open_requests, 1)
    return (
        f'vllm:omni_num_requests_running{{model_name="m"}} {running}.0\n'
        f'vllm:omni_num_requests_waiting{{model_name="m"}} {open_requests - running}.0\n'
    ).encode()


class Saying(ThreadingHTTPServer):
    """Answers with what ``says`` makes of the number of the look, from 0; None is silence."""

    daemon_threads = True

    def __init__(self, says: Callable[[int], bytes | None]) -> None:
        super().__init__((HOST, 0), _Handler)
        self.says = says
        self.looks: list[float] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/metrics"


class _Handler(BaseHTTPRequestHandler):
    server: Saying

    def do_GET(self) -> None:
        self.server.looks.append(time.monotonic())
        said = self.server.says(len(self.server.looks) - 1)
        if said is None:
            self.server.over.wait()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def saying() -> Iterator[Callable[[Callable[[int], bytes | None]], Saying]]:
    started: list[Saying] = []

    def start(says: Callable[[int], bytes | None]) -> Saying:
        server = Saying(says)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in started:
        server.over.set()
        server.shutdown()
        server.server_close()


def drained(
    url: str, *, seconds: float = 60.0, quiet: float = QUIET_SECONDS
) -> subprocess.CompletedProcess[str]:
    """The drain, which is killed if it does not end long after its deadline."""
    options = {"url": url, "seconds": seconds, "quiet": quiet, "every": 0.05}
    return subprocess.run(
        [sys.executable, "-I", str(DRAIN), *(f"--{k}={v}" for k, v in options.items())],
        env={"http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )


Start = Callable[[Callable[[int], bytes | None]], Saying]


def test_drain_ends_once_no_request_was_open_for_a_while(saying: Start) -> None:
    server = saying(lambda look: page(max(0, 3 - look)))
    done = drained(server.url)
    assert (done.returncode, done.stderr) == (0, "")
    # The first look that saw nothing was the fourth.
    assert server.looks[-1] - server.looks[3] >= QUIET_SECONDS - 0.05


def test_request_that_comes_meanwhile_begins_the_while_anew(saying: Start) -> None:
    server = saying(lambda look: page(1 if look == 4 else 0))
    assert drained(server.url).returncode == 0
    assert server.looks[-1] - server.looks[4] >= QUIET_SECONDS - 0.05


def test_drain_gives_up_at_its_deadline_and_says_how_many_are_left(saying: Start) -> None:
    server = saying(lambda look: page(3))
    done = drained(server.url, seconds=3)
    assert done.returncode == 1
    assert done.stderr == "drain: gave up after 3 s: 3 requests are open\n"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"vllm:num_requests_running 0\n", "is the plugin on?"),
        (b'vllm:omni_num_requests_running{model_name="m"}\n', "list index out of range"),
        (b"vllm:omni_num_requests_running none\n", "could not convert"),
        (None, "the server has not answered"),
    ],
    ids=["plugin off", "cut off", "no number", "no answer"],
)
def test_server_that_does_not_say_is_not_taken_for_idle(
    saying: Start, said: bytes | None, words: str
) -> None:
    done = drained(saying(lambda look: said).url, seconds=2, quiet=0.1)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_server_that_is_gone_has_nothing_to_wait_for() -> None:
    done = drained(f"http://{HOST}:{free_port()}/metrics")
    assert done.returncode == 0
    assert "nobody listens" in done.stderr


def test_impossible_deadline_is_refused() -> None:
    done = drained("http://127.0.0.1:1", seconds=-1)
    assert done.returncode == 2
    assert "--seconds: -1 is not a number of seconds above 0" in done.stderr
