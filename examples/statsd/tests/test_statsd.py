"""What arrives at a UDP socket, and that nothing of it can hold anybody up."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import vllm_omni_statsd
from vllm_omni_statsd import DATAGRAM_BYTES, StatsD, datagrams

from vllm_omni_metrics_plugin.hooks import (
    Configured,
    ImageFinished,
    RequestArrived,
    RequestFinished,
    StageFinished,
    VideoFinished,
)
from vllm_omni_metrics_plugin.testing import HookHarness, make_event, speech_request


class Receiver:
    """A StatsD server, as far as it is a socket."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def datagrams(self) -> list[bytes]:
        """All that have arrived; on loopback that is all that were sent."""
        received = []
        self._socket.setblocking(False)
        while True:
            try:
                received.append(self._socket.recv(65536))
            except BlockingIOError:
                return received

    def lines(self) -> list[str]:
        return [line for datagram in self.datagrams() for line in datagram.decode().split("\n")]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    listening = Receiver()
    yield listening
    listening.close()


Start = Callable[..., StatsD]


@pytest.fixture
def start(omni_hooks: HookHarness, receiver: Receiver) -> Iterator[Start]:
    """Registers a plugin in a server, with the receiver's address unless another is given."""
    started = []

    def configured(role: str = "server", **environ: str) -> StatsD:
        environ = {"VLLM_OMNI_STATSD": receiver.address, **environ}
        plugin = omni_hooks.register(StatsD(environ))
        started.append(plugin)
        omni_hooks.fire(make_event(Configured, role=role))
        return plugin

    yield configured
    for plugin in started:
        plugin.close()


@pytest.fixture(autouse=True)
def _sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_omni_statsd, "FLUSH_SECONDS", 3600.0)


def test_speech_has_counts_timings_and_gauges_with_tags(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start()
    omni_hooks.fire(*speech_request(model_name="Qwen/Qwen3-TTS", packets=3, replica=1))
    omni_hooks.fire(make_event(RequestArrived, model_name="Qwen/Qwen3-TTS"))
    plugin.close()
    about = "model:Qwen/Qwen3-TTS"
    where = f"{about},stage:1,replica:1"
    assert receiver.lines() == [
        f"vllm_omni.first_packet_time:200.0|ms|#{where}",
        "vllm_omni.tokens_in:12|c|#stage:0,replica:0",
        "vllm_omni.tokens_out:25|c|#stage:0,replica:0",
        "vllm_omni.tokens_in:0|c|#stage:1,replica:1",
        "vllm_omni.tokens_out:25|c|#stage:1,replica:1",
        f"vllm_omni.audio_seconds:3.0|c|#{where}",
        f"vllm_omni.audio_rtf:0.263333|h|#{where}",
        f"vllm_omni.requests:1|c|#{about},outcome:stop",
        f"vllm_omni.request_time:800.0|ms|#{about}",
        f"vllm_omni.queue_time:10.0|ms|#{about}",
        f"vllm_omni.requests_open:1|g|#{about}",
    ]


def test_plain_statsd_has_the_same_in_its_names(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start(VLLM_OMNI_STATSD_FORMAT="statsd", VLLM_OMNI_STATSD_PREFIX="tts.eu")
    omni_hooks.fire(*speech_request(model_name="Qwen/Qwen3-TTS.v2", packets=1, replica=1))
    plugin.close()
    lines = receiver.lines()
    where = "Qwen_Qwen3-TTS_v2.1.1"
    assert f"tts.eu.audio_seconds.{where}:1.0|c" in lines
    assert f"tts.eu.audio_rtf.{where}:0.19|ms" in lines
    assert "tts.eu.requests.Qwen_Qwen3-TTS_v2.stop:1|c" in lines
    assert not any("#" in line for line in lines)


def test_images_and_videos_are_counted(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start()
    omni_hooks.fire(make_event(ImageFinished, images=3, replica=0))
    omni_hooks.fire(make_event(VideoFinished, duration_seconds=4.5, replica=None))
    plugin.close()
    assert receiver.lines() == [
        "vllm_omni.images:3|c|#model:tiny,stage:1,replica:0",
        "vllm_omni.video_seconds:4.5|c|#model:tiny,stage:1",
    ]


def test_what_is_not_known_has_no_line(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start()
    unknown = {"end_to_end_seconds": None, "queue_seconds": None}
    omni_hooks.fire(make_event(RequestArrived), make_event(RequestFinished, **unknown))
    omni_hooks.fire(make_event(StageFinished, tokens_in=None, tokens_out=None))
    plugin.close()
    assert receiver.lines() == [
        "vllm_omni.requests:1|c|#model:tiny,outcome:stop",
        "vllm_omni.requests_open:0|g|#model:tiny",
    ]


def test_name_from_outside_cannot_break_a_line(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start()
    omni_hooks.fire(make_event(ImageFinished, images=1, model_name="a|b,c#d\ne", replica=0))
    plugin.close()
    assert receiver.lines() == ["vllm_omni.images:1|c|#model:a_b_c_d_e,stage:1,replica:0"]


def test_datagrams_are_as_full_as_they_may_be_and_no_fuller(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    plugin = start()
    for number in range(500):
        omni_hooks.fire(make_event(ImageFinished, images=number, replica=0))
    plugin.close()
    datagrams = receiver.datagrams()
    line = len("vllm_omni.images:499|c|#model:tiny,stage:1,replica:0\n")
    assert all(DATAGRAM_BYTES - line < len(sent) <= DATAGRAM_BYTES for sent in datagrams[:-1])
    sent = [line for datagram in datagrams for line in datagram.split(b"\n")]
    assert [int(line.split(b"|")[0].split(b":")[1]) for line in sent] == list(range(500))


@pytest.mark.parametrize("more", [0, 1])
def test_datagram_may_be_filled_to_its_last_byte(more: int) -> None:
    half = b"x" * ((DATAGRAM_BYTES - 1) // 2)
    rest = b"y" * (DATAGRAM_BYTES - 1 - len(half) + more)
    assert len(list(datagrams([half, rest]))) == 1 + more


def test_line_that_is_too_long_goes_alone() -> None:
    long = b"x" * (DATAGRAM_BYTES + 1)
    assert list(datagrams([b"a", long, b"b"])) == [[b"a"], [long], [b"b"]]
    assert list(datagrams([])) == []


def test_lines_are_sent_while_the_server_runs(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_omni_statsd, "FLUSH_SECONDS", 0.01)
    start()
    omni_hooks.fire(make_event(ImageFinished, images=1))
    receiver._socket.settimeout(60)
    assert receiver._socket.recv(65536).startswith(b"vllm_omni.images:1|c")


# What goes wrong


def test_lines_that_nobody_takes_are_counted_and_the_receiver_is_told(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin = start()
    connect = vllm_omni_statsd._connected
    monkeypatch.setattr(vllm_omni_statsd, "_connected", lambda _: refuses())
    omni_hooks.fire(make_event(ImageFinished), make_event(ImageFinished))
    plugin._flush()
    assert plugin.dropped == 2
    monkeypatch.setattr(vllm_omni_statsd, "_connected", connect)
    plugin._flush()
    assert receiver.lines() == ["vllm_omni.statsd_dropped:2|c"]
    plugin.close()
    assert receiver.lines() == [], "once"


def refuses() -> Any:
    raise OSError("no such host")


def test_full_socket_buffer_drops_and_does_not_wait(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    class Full:
        def send(self, _: bytes) -> int:
            raise BlockingIOError

        def close(self) -> None: ...

    plugin = start()
    plugin._socket = cast(socket.socket, Full())
    omni_hooks.fire(make_event(ImageFinished))
    plugin.close()
    assert plugin.dropped == 1
    assert receiver.lines() == []


def test_port_on_which_nobody_listens_hurts_nobody(
    omni_hooks: HookHarness, start: Start, receiver: Receiver
) -> None:
    receiver.close()
    plugin = start()
    for _ in range(50):
        omni_hooks.fire(make_event(ImageFinished))
        plugin._flush()
    assert plugin.dropped > 0, "the kernel says so"


def test_lines_wait_in_bounded_number(
    omni_hooks: HookHarness, start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_omni_statsd, "MOST_WAITING", 3)
    plugin = start()
    for _ in range(5):
        omni_hooks.fire(make_event(ImageFinished))
    assert plugin.dropped == 2
    plugin.close()
    lines = receiver.lines()
    assert [line.split(":")[0] for line in lines] == [
        "vllm_omni.statsd_dropped",
        *3 * ["vllm_omni.images"],
    ]


@pytest.mark.parametrize(
    "address", ["localhost", ":8125", "host:", "host:port", "host:0", "h:65536"]
)
def test_address_that_is_none_is_named_and_nothing_sent(
    omni_hooks: HookHarness, start: Start, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    plugin = start(VLLM_OMNI_STATSD=address)
    omni_hooks.fire(*speech_request())
    [message] = caplog.messages
    assert message == f"VLLM_OMNI_STATSD={address!r} is not host:port; nothing is sent"
    assert list(plugin._lines) == []


def test_unknown_format_is_named_and_tags_are_used(
    omni_hooks: HookHarness, start: Start, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = start(VLLM_OMNI_STATSD_FORMAT="telegraf")
    omni_hooks.fire(make_event(ImageFinished))
    plugin.close()
    [message] = caplog.messages
    assert "VLLM_OMNI_STATSD_FORMAT='telegraf' is neither" in message
    assert "#model:tiny" in receiver.lines()[0]


@pytest.mark.parametrize(("role", "address"), [("worker", None), ("server", "")])
def test_nothing_is_started_where_nothing_is_asked_for(
    omni_hooks: HookHarness,
    start: Start,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    role: str,
    address: str | None,
) -> None:
    plugin = start(role) if address is None else start(role, VLLM_OMNI_STATSD=address)
    assert plugin._thread is None
    omni_hooks.fire(*speech_request())
    assert (receiver.lines(), caplog.messages) == ([], [])
