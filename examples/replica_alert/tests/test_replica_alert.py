"""What arrives at a webhook when replicas leave and return, and that a bad one costs nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from typing import Any

import pytest
import vllm_omni_replica_alert
from vllm_omni_replica_alert import ReplicaAlert

from vllm_omni_metrics_plugin.hooks import Configured, ReplicaJoined, ReplicaLeft
from vllm_omni_metrics_plugin.testing import HookHarness, make_event


class Receiver:
    """A webhook; answers with the statuses that it is given, then 200."""

    def __init__(self) -> None:
        self.messages: Queue[dict[str, Any]] = Queue()
        self.statuses: list[int] = []
        #: Set: it answers. Cleared: it takes a message and says nothing.
        self.answers = threading.Event()
        self.answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["content-type"] == "application/json"
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.messages.put(json.loads(body))
                receiver.answers.wait(60)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/secret"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def next(self) -> dict[str, Any]:
        return self.messages.get(timeout=60)

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    listening = Receiver()
    yield listening
    listening.close()


Start = Callable[..., ReplicaAlert]


@pytest.fixture
def start(omni_hooks: HookHarness, receiver: Receiver) -> Iterator[Start]:
    """Registers a plugin in a server; it alerts at once unless it is told otherwise."""
    started = []

    def configured(role: str = "server", **environ: str) -> ReplicaAlert:
        environ = {
            "VLLM_OMNI_ALERT_WEBHOOK": receiver.url,
            "VLLM_OMNI_ALERT_AFTER_SECONDS": "0",
            "VLLM_OMNI_ALERT_INTERVAL_SECONDS": "0",
            **environ,
        }
        plugin = omni_hooks.register(ReplicaAlert(environ))
        omni_hooks.fire(make_event(Configured, role=role))
        started.append(plugin)
        return plugin

    yield configured
    for plugin in started:
        plugin.close()


def left(replica: int = 0, **about: Any) -> ReplicaLeft:
    return make_event(ReplicaLeft, replica=replica, **{"reason": "died", **about})


def joined(replica: int = 0) -> ReplicaJoined:
    return make_event(ReplicaJoined, replica=replica)


def test_replica_that_left_and_returned_has_a_message_each(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    start()
    omni_hooks.fire(joined(), left(replica=2))
    message = receiver.next()
    who = {"model": "tiny", "stage": 1, "replica": 2}
    assert message["left"] == [{**who, "reason": "died"}]
    assert message["returned"] == []
    assert "tiny: replica 2 of stage 1 died" in message["text"]
    assert message["host"] in message["text"]

    omni_hooks.fire(joined(replica=2))
    message = receiver.next()
    assert (message["left"], message["returned"]) == ([], [who])
    assert "tiny: replica 2 of stage 1 is back" in message["text"]

    omni_hooks.fire(left(replica=2, reason="removed"))
    assert receiver.next()["left"] == [{**who, "reason": "removed"}], "another episode"


def test_reason_that_no_event_says_is_null(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    start()
    omni_hooks.fire(left(reason=None))
    message = receiver.next()
    assert message["left"][0]["reason"] is None
    assert message["text"].endswith("replica 0 of stage 1 left")


def test_engine_that_is_stopped_alerts_nobody(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    start()
    omni_hooks.fire(left(replica=0, reason="stopped"), left(replica=1, reason="stopped"))
    omni_hooks.fire(left(replica=2))
    assert [gone["replica"] for gone in receiver.next()["left"]] == [2]


def test_replica_is_given_time_to_come_back(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    start(VLLM_OMNI_ALERT_AFTER_SECONDS="3600")
    omni_hooks.fire(left())
    with pytest.raises(Empty):
        receiver.messages.get(timeout=0.2)


def test_what_happens_meanwhile_is_one_message_without_those_who_came_back(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    receiver.answers.clear()
    start()
    omni_hooks.fire(left(replica=9))
    receiver.next()  # and now it says nothing
    omni_hooks.fire(left(replica=0), joined(replica=0), left(replica=2), left(replica=1))
    receiver.answers.set()
    assert [gone["replica"] for gone in receiver.next()["left"]] == [1, 2]


def test_flapping_replica_has_one_message_an_interval(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    start(VLLM_OMNI_ALERT_INTERVAL_SECONDS="3600")
    omni_hooks.fire(left())
    receiver.next()
    for _ in range(20):
        omni_hooks.fire(joined(), left())
    with pytest.raises(Empty):
        receiver.messages.get(timeout=0.2)


# A webhook that is no good


@pytest.mark.parametrize("status", [404, 429, 500])
def test_message_that_is_refused_is_sent_again(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    receiver.statuses = [status]
    start()
    omni_hooks.fire(left())
    assert receiver.next()["left"] == receiver.next()["left"]
    assert "is tried again" in caplog.messages[0]
    assert "secret" not in caplog.text


def test_receiver_that_does_not_answer_is_given_up_and_tried_again(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_omni_replica_alert, "TIMEOUT_SECONDS", 0.05)
    receiver.answers.clear()
    start()
    omni_hooks.fire(left())
    assert receiver.next()["left"] == receiver.next()["left"]


def test_hooks_do_not_wait_for_the_receiver(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    receiver.answers.clear()
    plugin = start()
    omni_hooks.fire(left(replica=0))
    receiver.next()  # and now it says nothing
    omni_hooks.fire(left(replica=1), joined(replica=0))
    assert plugin._told == set(), "these came back while the message was under way"
    receiver.answers.set()
    message = receiver.next()
    assert [gone["replica"] for gone in message["left"]] == [1]
    assert [back["replica"] for back in message["returned"]] == [0]


def test_nobody_at_the_other_end_is_tried_again(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.close()
    start(VLLM_OMNI_ALERT_INTERVAL_SECONDS="0.01")
    omni_hooks.fire(left())
    deadline = time.monotonic() + 60
    while len(caplog.messages) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(caplog.messages) >= 2
    assert all("is tried again" in message for message in caplog.messages)


# What it is told


def test_address_that_is_none_is_not_shown(
    omni_hooks: HookHarness, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = start(VLLM_OMNI_ALERT_WEBHOOK="hooks.example/services/secret")
    assert plugin._thread is None
    [message] = caplog.messages
    assert message.startswith("VLLM_OMNI_ALERT_WEBHOOK is no http(s) address")
    assert "secret" not in message


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "1e9"])
def test_bad_number_is_named_and_the_default_used(
    start: Start, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    plugin = start(VLLM_OMNI_ALERT_AFTER_SECONDS=value)
    assert plugin._after == 10.0
    [message] = caplog.messages
    assert f"VLLM_OMNI_ALERT_AFTER_SECONDS={value!r}" in message
    assert "10 is used" in message


@pytest.mark.parametrize(
    ("role", "environ"), [("worker", {}), ("server", {"VLLM_OMNI_ALERT_WEBHOOK": ""})]
)
def test_nothing_is_started_where_nothing_is_asked_for(
    omni_hooks: HookHarness, start: Start, role: str, environ: dict[str, str]
) -> None:
    plugin = start(role, **environ)
    omni_hooks.fire(left())
    assert plugin._thread is None
