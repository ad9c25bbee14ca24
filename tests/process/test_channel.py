"""Events from one process to another: what arrives, what is dropped, and that both add up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_transfers import received, sent
from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.channel import frames
from vllm_omni_metrics_plugin.channel import receiver as receivers
from vllm_omni_metrics_plugin.channel import sender as senders
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint, private_endpoint
from vllm_omni_metrics_plugin.channel.frames import FailedHalf, Frame, FrameError, WireEvent
from vllm_omni_metrics_plugin.channel.receiver import Receiver
from vllm_omni_metrics_plugin.channel.sender import Sender
from vllm_omni_metrics_plugin.hooks import EventsDropped, HookRegistry

SPAWN = multiprocessing.get_context("spawn")


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.PULL) as probe:
        return probe.bind_to_random_port("tcp://127.0.0.1")


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    yield private_endpoint()
    assert list(tmp_path.iterdir()) == [], "files were left behind"


class Listening:
    """A receiver and what it delivered."""

    def __init__(self, endpoint: Endpoint, hooks: Any) -> None:
        self.events: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.first_frame: Frame | None = None
        self.receiver = Receiver(endpoint, hooks, self._deliver)
        self._count, self.receiver._count = self.receiver._count, self._note  # type: ignore[method-assign]
        self.receiver.start()

    def _note(self, frame: Frame, invalid: int) -> None:
        self.first_frame = self.first_frame or frame
        self._count(frame, invalid)

    def _deliver(self, event: Any) -> None:
        self.gate.wait()
        self.events.append(event)


@pytest.fixture
def listen(endpoint: Endpoint, hooks: Any) -> Iterator[Callable[..., Listening]]:
    made: list[Listening] = []

    def start(at: Endpoint = endpoint) -> Listening:
        made.append(Listening(at, hooks))
        return made[-1]

    yield start
    for listening in made:
        listening.gate.set()
        listening.receiver.close()


@pytest.fixture
def sender(endpoint: Endpoint) -> Iterator[Sender]:
    made = Sender(endpoint)
    yield made
    made.close(0.1)


def drops(recorder: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for event in recorder.of(EventsDropped):
        total[event.reason] = total.get(event.reason, 0) + event.count
    return total


def test_events_arrive_as_they_were_sent(listen: Any, sender: Sender, recorder: Any) -> None:
    listening = listen()
    failed = FailedHalf(
        from_stage=0,
        to_stage=1,
        operation="send",
        replica=0,
        key="k",
        connector="C",
        reason="refused",
    )
    events: list[WireEvent] = [sent(), received(), failed]
    for event in events:
        sender.send(event)
    wait_for(lambda: len(listening.events) == 3)
    assert listening.events == events
    assert drops(recorder) == {}


def test_sender_may_begin_before_anybody_listens(listen: Any, sender: Sender) -> None:
    sender.send(sent("early"))
    time.sleep(0.2)
    listening = listen()
    wait_for(lambda: len(listening.events) == 1)


def test_what_was_sent_before_a_graceful_stop_arrives(listen: Any, sender: Sender) -> None:
    listening = listen()
    for number in range(1000):
        sender.send(sent(f"{number}"))
    sender.close()
    listening.receiver.close()
    assert [event.key for event in listening.events] == [f"{n}" for n in range(1000)]


def test_sender_that_was_closed_drops(sender: Sender) -> None:
    sender.send(sent())
    sender.close(0.1)
    sender.send(sent())
    assert sender._dropped == 1


# Under pressure


def test_nobody_listening_costs_a_bounded_memory_and_no_time(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "MOST_WAITING", 100)
    for _ in range(50_000):
        sender.send(sent())
    assert sender._waiting.qsize() <= 101
    assert sender._dropped > 0


def test_flood_at_a_stalled_listener_adds_up(
    listen: Any, sender: Sender, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "MOST_WAITING", 500)
    listening = listen()
    listening.gate.clear()
    flood = 100_000
    for number in range(flood):
        sender.send(sent(f"{number}"))
    assert sender._dropped > 0, "the stall was never felt"
    listening.gate.set()
    sender.send(sent("last"))
    wait_for(lambda: len(listening.events) + sum(drops(recorder).values()) == flood + 1)
    assert set(drops(recorder)) == {"queue_full"}
    keys = [int(event.key) for event in listening.events if event.key != "last"]
    assert keys == sorted(set(keys)), "in order, none twice"


def test_receiver_that_is_closed_takes_what_has_arrived(listen: Any, endpoint: Endpoint) -> None:
    listening = listen()
    listening.gate.clear()
    for number in range(5):  # each in frames of its own
        one = Sender(endpoint)
        one.send(sent(f"{number}"))
        one.close()
    closing = threading.Thread(target=listening.receiver.close)
    closing.start()
    wait_for(listening.receiver._closing.is_set)
    listening.gate.set()
    closing.join()
    assert sorted(event.key for event in listening.events) == ["0", "1", "2", "3", "4"]
    assert not listening.receiver.listening


def test_receiver_rests_four_times_as_long_as_it_worked(
    listen: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=rests.append)
    monkeypatch.setattr(receivers, "time", clock)
    listening = listen()
    listening.gate.clear()
    sender.send(sent())
    wait_for(lambda: listening.first_frame is not None)
    time.sleep(0.05)
    listening.gate.set()
    wait_for(lambda: bool(rests))
    assert rests[0] >= 4 * 0.05


def test_threads_may_send_at_once(listen: Any, sender: Sender, recorder: Any) -> None:
    listening = listen()

    def send(name: str) -> None:
        for number in range(2_000):
            sender.send(sent(f"{name}{number}"))

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(listening.events) + sum(drops(recorder).values()) == 8_000)


def _flood(address: str, private: bool, count: int, pause: float) -> None:
    sender = Sender(Endpoint(address, private=private))
    for number in range(count - 1):
        sender.send(sent(f"{number}"))
        if pause and number % 100 == 0:
            time.sleep(pause)
    wait_for(lambda: sender._waiting.qsize() < senders.MOST_WAITING // 2)
    sender.send(sent("last"))
    sender.close(20.0)


def _listen_until_killed(address: str, began: Any) -> None:
    Receiver(Endpoint(address), HookRegistry().hooks, lambda event: began.set()).start()
    time.sleep(600)


def test_listener_that_is_killed_may_come_back(hooks: Any, tmp_path: Path, recorder: Any) -> None:
    endpoint = Endpoint(f"ipc://{tmp_path / 'events'}")
    began = SPAWN.Event()
    first = SPAWN.Process(target=_listen_until_killed, args=(endpoint.address, began))
    first.start()
    count = 20_000
    sending = SPAWN.Process(target=_flood, args=(endpoint.address, False, count, 0.005))
    sending.start()
    try:
        assert began.wait(60)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        second = Listening(endpoint, hooks)
        wait_for(lambda: bool(second.events) and second.events[-1].key == "last", 60.0)
        sending.join(60)
        second.receiver.close()
    finally:
        first.kill()
        sending.kill()
    # All that it was not told since its first frame is counted, exactly.
    assert second.first_frame is not None
    since = count - second.first_frame.first
    assert len(second.events) + sum(drops(recorder).values()) == since
    assert not (tmp_path / "events").exists()


def test_each_of_several_processes_is_counted_by_itself(
    endpoint: Endpoint, listen: Any, recorder: Any
) -> None:
    listening = listen()
    count = 3_000
    processes = [
        SPAWN.Process(target=_flood, args=(endpoint.address, True, count, 0.0)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    wait_for(lambda: len(listening.events) + sum(drops(recorder).values()) == 3 * count)
    assert "lost" not in drops(recorder)


def test_child_of_a_fork_is_a_sender_of_its_own(listen: Any, sender: Sender) -> None:
    listening = listen()
    sender.send(sent("parent"))
    wait_for(lambda: len(listening.events) == 1)
    pid = os.fork()
    if pid == 0:
        sender.send(sent("child"))
        sender.close()
        os._exit(0)
    try:
        wait_for(lambda: os.waitpid(pid, os.WNOHANG) != (0, 0))
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    wait_for(lambda: len(listening.events) == 2)
    sender.send(sent("parent again"))
    wait_for(lambda: len(listening.events) == 3)


# What is not an event


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "garbage"),
        (b"\x00\xff garbage", "garbage"),
        (msgspec.msgpack.encode({"type": "TransferSent"}), "garbage"),
        (msgspec.msgpack.encode(["me", 0, 0, [{"type": "RequestFinished"}]]), "invalid"),
        (msgspec.msgpack.encode(["me", 0, 0, ["speech"]]), "invalid"),
        (msgspec.msgpack.encode(["me", -1, 0, []]), "garbage"),
        (b"cos\nsystem\n(S'true'\ntR.", "garbage"),
        (b"x" * (frames.MOST_BYTES + 1), "oversized"),
    ],
)
def test_frame_that_is_none_is_counted_and_the_next_one_is_taken(
    endpoint: Endpoint, listen: Any, sender: Sender, recorder: Any, data: bytes, reason: str
) -> None:
    listening = listen()
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.connect(endpoint.address)
        stranger.send(data)
    wait_for(lambda: drops(recorder) == {reason: 1})
    sender.send(sent())
    wait_for(lambda: len(listening.events) == 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"from_stage": -1},
        {"to_stage": 70_000},
        {"from_replica": -1},
        {"size_bytes": -5},
        {"duration_seconds": -0.1},
        {"key": "k" * 513},
    ],
)
def test_event_with_a_value_that_cannot_be_costs_itself_alone(changed: dict[str, Any]) -> None:
    events: list[WireEvent] = [sent("a"), sent(**changed), sent("b")]
    frame, invalid = frames.decode(frames.encode(Frame("me", 7, 0, events)))
    assert (frame.first, frame.events, invalid) == (7, [sent("a"), sent("b")], 1)


def test_events_after_one_that_is_none_are_not_counted_as_lost(
    listen: Any, sender: Sender, recorder: Any
) -> None:
    listening = listen()
    for event in (sent("a"), sent(from_stage=-1), sent("b")):
        sender.send(event)
    wait_for(lambda: len(listening.events) == 2)
    sender.send(sent("c"))
    wait_for(lambda: len(listening.events) == 3)
    assert drops(recorder) == {"invalid": 1}


@pytest.mark.parametrize("size", ["5", [5], object(), 1 << 70])
def test_event_that_has_no_form_on_the_wire_costs_itself_alone(
    listen: Any, sender: Sender, recorder: Any, log: Any, size: Any
) -> None:
    listening = listen()
    for event in (sent("a"), sent("bad", size_bytes=size), sent("b")):
        sender.send(event)
    wait_for(lambda: len(listening.events) == 2 and sum(drops(recorder).values()) == 1)
    sender.send(sent("c"))
    wait_for(lambda: len(listening.events) == 3)
    assert set(drops(recorder)) <= {"unsendable", "invalid"}
    assert log.messages == []


def test_sending_thread_that_an_error_ends_begins_anew(
    listen: Any, sender: Sender, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "_RESTART_SECONDS", 0.01)
    listening = listen()
    sender.send(sent("a"))
    wait_for(lambda: len(listening.events) == 1)
    push, failures = sender._push, [MemoryError(), zmq.ZMQError(9)]

    def fail(socket: Any, data: bytes) -> bool:
        if failures:
            raise failures.pop()
        return push(socket, data)

    monkeypatch.setattr(sender, "_push", fail)
    for key in "bcd":
        sender.send(sent(key))
        time.sleep(0.1)
    wait_for(lambda: listening.events[-1].key == "d")
    wait_for(lambda: len(listening.events) + sum(drops(recorder).values()) == 4)
    assert drops(recorder) == {"unsendable": 2}


def test_receiving_thread_that_an_error_ends_begins_anew(
    listen: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    monkeypatch.setattr(receivers, "_RETRY_SECONDS", 0.01)
    listening = listen()
    take, failures = listening.receiver.take, [zmq.ZMQError(9)]

    def fail(data: bytes) -> None:
        if failures:
            raise failures.pop()
        take(data)

    monkeypatch.setattr(listening.receiver, "take", fail)
    sender.send(sent("a"))
    wait_for(lambda: not failures)
    sender.send(sent("b"))
    wait_for(lambda: [event.key for event in listening.events] == ["b"])


def test_frame_of_too_many_events_is_none() -> None:
    for bad in (sent(), sent(from_stage=-1)):
        with pytest.raises(FrameError):
            frames.decode(frames.encode(Frame("me", 0, 0, [bad] * (frames.MOST_EVENTS + 1))))


@given(data=st.binary(max_size=400))
def test_no_bytes_do_any_harm(data: bytes) -> None:
    try:
        frame, _ = frames.decode(data)
    except FrameError:
        return
    assert isinstance(frame, Frame)


def test_receiver_that_raises_takes_the_next_event(
    endpoint: Endpoint, hooks: Any, log: Any
) -> None:
    taken: list[str] = []

    def deliver(event: Any) -> None:
        taken.append(event.key)
        raise RuntimeError("not this one")

    receiver = Receiver(endpoint, hooks, deliver)
    # Not by a sender of this process, which would report the receiver's errors to it as well.
    for first, key in enumerate("ab"):
        receiver.take(frames.encode(Frame("stage", first, 0, [sent(key)])))
    assert taken == ["a", "b"]
    assert internal_errors.errors.counts() == {"an event of another process": 2}
    assert len(log.messages) == 1


def _send_errors(address: str) -> None:
    sender = Sender(Endpoint(address))
    internal_errors.errors.added = sender.send_errors
    for place in ("here", "there", "here"):
        with internal_errors.suppressed(place):
            raise RuntimeError("on purpose")
    sender.close()


def test_internal_errors_of_a_stage_process_are_counted_in_the_server(
    endpoint: Endpoint, listen: Any
) -> None:
    listen()
    stage = SPAWN.Process(target=_send_errors, args=(endpoint.address,))
    stage.start()
    wait_for(lambda: internal_errors.errors.counts() == {"here": 2, "there": 1})
    stage.join()


def test_counts_of_errors_in_frames_are_added_once(listen: Any) -> None:
    receiver = listen().receiver
    for frame in (
        Frame("one", 0, 0, [], {"here": 2}),
        Frame("two", 0, 0, [], {"here": 1, "there": 1}),
        Frame("one", 0, 0, [], {"here": 5}),
        Frame("one", 0, 0, [], {"here": 5}),
    ):
        receiver.take(frames.encode(frame))
    assert internal_errors.errors.counts() == {"here": 6, "there": 1}


# Where it is


def test_socket_is_its_users_alone(endpoint: Endpoint, listen: Any) -> None:
    listen()
    path = endpoint.path
    assert path is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_servers_do_not_share_a_socket(endpoint: Endpoint) -> None:
    assert private_endpoint().address != endpoint.address


@pytest.fixture(params=["ipc", "tcp"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, key_files: dict[str, str]) -> Endpoint:
    """An address that several servers are given."""
    if request.param == "ipc":
        return Endpoint(f"ipc://{tmp_path / 'shared'}")
    return Endpoint(f"tcp://127.0.0.1:{free_port()}", key_files["ours"])


def test_second_server_at_one_address_says_so_and_waits_for_its_turn(
    hooks: Any, shared: Endpoint, log: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "_RETRY_SECONDS", 0.05)
    first, second = Listening(shared, hooks), Listening(shared, hooks)
    assert (first.receiver.listening, second.receiver.listening) == (True, False)
    assert len(log.messages) == 1
    assert f"cannot listen for the stage engines' events at {shared.address}" in log.messages[0]
    assert drops(recorder) == {"not_listening": 1}
    sender = Sender(shared)
    sender.send(sent("a"))
    wait_for(lambda: len(first.events) == 1)
    first.receiver.close()
    wait_for(lambda: second.receiver.listening)
    sender.send(sent("b"))
    wait_for(lambda: [event.key for event in second.events] == ["b"])
    sender.close()
    second.receiver.close()
    assert drops(recorder) == {"not_listening": 1}
    assert len(log.messages) == 2
    assert "listens for the stage engines' events" in log.messages[1]


def test_file_of_somebodys_is_not_taken_for_a_socket(hooks: Any, tmp_path: Path, log: Any) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    listening = Listening(Endpoint(f"ipc://{file}"), hooks)
    assert not listening.receiver.listening
    assert "is there already, and no socket" in log.messages[0]
    listening.receiver.close()
    Endpoint(f"ipc://{file}").remove()
    assert file.read_text() == "mine"


@pytest.mark.parametrize("runtime", ["private", "open", "relative", "too long", None])
def test_private_socket_has_room_whatever_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: Any, runtime: str | None
) -> None:
    long = tmp_path / ("l" * 90)
    long.mkdir()
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(long))
    named = {"relative": "run", "too long": str(long)}.get(runtime or "", str(short))
    if runtime is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", named)
    if runtime == "open":
        short.chmod(0o755)
    endpoint = private_endpoint()
    assert endpoint.path is not None
    expected = short if runtime == "private" else Path("/tmp")
    assert endpoint.path.parent.parent == expected
    listening = Listening(endpoint, hooks)
    assert listening.receiver.listening
    listening.receiver.close()
    assert not endpoint.path.parent.exists()
    short.rmdir()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ipc:///tmp/" + "x" * 120, "longer than"),
        ("tcp://127.0.0.1:99999", "no port"),
        ("tcp://no.such.host.invalid:777", "no host of the name"),
        ("ipc:///tmp", "no socket"),
    ],
)
def test_place_where_nobody_can_listen_ends_in_one_warning_on_both_sides(
    hooks: Any,
    key_files: dict[str, str],
    log: Any,
    recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    words: str,
) -> None:
    monkeypatch.setattr(receivers, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(senders, "_RESTART_SECONDS", 0.01)
    endpoint = Endpoint(address, key_files["ours"] if address.startswith("tcp") else None)
    listening, sender = Listening(endpoint, hooks), Sender(endpoint)
    sender.send(sent())
    time.sleep(0.2)
    assert not listening.receiver.listening
    assert words in log.messages[0]
    assert drops(recorder) == {"not_listening": 1}
    assert len([message for message in log.messages if "cannot listen" in message]) == 1
    assert len([message for message in log.messages if "cannot send" in message]) <= 1
    assert internal_errors.errors.counts() == {}
    sender.close(0.1)
    listening.receiver.close()


def test_folder_of_an_api_server_that_was_killed_is_used_by_another(
    endpoint: Endpoint, listen: Any, sender: Sender
) -> None:
    assert endpoint.path is not None
    endpoint.path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(endpoint.path))
    listening = listen()
    sender.send(sent())
    wait_for(lambda: len(listening.events) == 1)


def test_folder_that_others_could_open_is_not_used(
    hooks: Any, endpoint: Endpoint, log: Any
) -> None:
    assert endpoint.path is not None
    endpoint.path.parent.mkdir(mode=0o755)
    endpoint.path.parent.chmod(0o755)
    listening = Listening(endpoint, hooks)
    assert not listening.receiver.listening
    assert "cannot listen" in log.messages[0]
    listening.receiver.close()
    endpoint.path.parent.rmdir()


def test_what_a_killed_server_left_is_removed_by_the_next(
    endpoint: Endpoint, listen: Any, tmp_path: Path
) -> None:
    old, new, foreign = (
        tmp_path / name
        for name in (
            f"vllm-omni-metrics-{os.getuid()}-old",
            f"vllm-omni-metrics-{os.getuid()}-new",
            "vllm-omni-metrics-99999-old",
        )
    )
    for folder in (old, new, foreign):
        folder.mkdir()
        (folder / "events").touch()
    for folder in (old, foreign):
        os.utime(folder, (0, 0))
    listen()
    assert [folder.exists() for folder in (old, new, foreign)] == [False, True, True]
    for folder in (new, foreign):
        (folder / "events").unlink()
        folder.rmdir()


def test_socket_file_that_somebody_removes_stops_nothing(
    endpoint: Endpoint, listen: Any, sender: Sender
) -> None:
    listening = listen()
    sender.send(sent("a"))
    wait_for(lambda: len(listening.events) == 1)
    assert endpoint.path is not None
    endpoint.path.unlink()
    sender.send(sent("b"))
    wait_for(lambda: len(listening.events) == 2)


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, str]:
    return {
        name: zmq.auth.create_certificates(str(tmp_path), name)[1] for name in ("ours", "theirs")
    }


@pytest.mark.parametrize("key", ["ours", "theirs", None])
def test_other_hosts_need_the_key(
    hooks: Any, key_files: dict[str, str], recorder: Any, key: str | None
) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    listening = Listening(Endpoint(address, key_files["ours"]), hooks)
    assert listening.receiver.listening
    sender = Sender(Endpoint(address, key_files[key] if key else None))
    sender.send(sent())
    if key == "ours":
        wait_for(lambda: len(listening.events) == 1)
    else:
        time.sleep(1.0)
        assert listening.events == []
    sender.close(0.1)
    listening.receiver.close()


def test_address_for_all_interfaces_is_reached_from_the_same_host(
    hooks: Any,
    key_files: dict[str, str],
) -> None:
    port = free_port()
    endpoint = Endpoint(f"tcp://0.0.0.0:{port}", key_files["ours"])
    listening = Listening(endpoint, hooks)
    sender = Sender(endpoint)
    sender.send(sent())
    wait_for(lambda: len(listening.events) == 1)
    sender.close()
    listening.receiver.close()


def test_key_that_is_none_is_reported_and_nobody_listens(
    hooks: Any, tmp_path: Path, log: Any
) -> None:
    (tmp_path / "key").write_text("no key")
    listening = Listening(Endpoint("tcp://127.0.0.1:1", str(tmp_path / "key")), hooks)
    assert not listening.receiver.listening
    assert "cannot listen" in log.messages[0]
    listening.receiver.close()
