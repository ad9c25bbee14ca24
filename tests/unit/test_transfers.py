"""Joining what the sender saw of a hop with what the receiver saw."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from vllm_omni_metrics_plugin.channel import hops
from vllm_omni_metrics_plugin.channel.frames import (
    FailedHalf,
    Half,
    ReceivedHalf,
    SentHalf,
)
from vllm_omni_metrics_plugin.channel.hops import Transfers
from vllm_omni_metrics_plugin.hooks import (
    HookRegistry,
    TransferFailed,
    TransferReceived,
    TransferSent,
)


def sent(key: str = "speech_0_0", **changed: Any) -> SentHalf:
    half = SentHalf(
        from_stage=0,
        from_replica=1,
        to_stage=1,
        key=key,
        connector="SharedMemoryConnector",
        size_bytes=298,
        duration_seconds=0.001,
        sent_at=100.0,
        clock="here",
    )
    return structs.replace(half, **changed)


def received(key: str = "speech_0_0", **changed: Any) -> ReceivedHalf:
    half = ReceivedHalf(
        from_stage=0,
        to_stage=1,
        to_replica=3,
        key=key,
        connector="SharedMemoryConnector",
        size_bytes=298,
        duration_seconds=0.002,
        received_at=100.010,
        clock="here",
    )
    return structs.replace(half, **changed)


def failed(key: str = "speech_0_0", **changed: Any) -> FailedHalf:
    half = FailedHalf(
        from_stage=0,
        to_stage=1,
        operation="send",
        replica=3,
        key=key,
        connector="SharedMemoryConnector",
        reason="refused",
    )
    return structs.replace(half, **changed)


@pytest.fixture
def joining(hooks: Any) -> Transfers:
    made = Transfers(hooks)
    made.model_name = "tiny"
    return made


@pytest.mark.parametrize("order", ["sender first", "receiver first"])
def test_both_halves_together_say_who_sent_to_whom(
    joining: Transfers, recorder: Any, order: str
) -> None:
    halves: list[Half] = [sent(), received()]
    for half in halves if order == "sender first" else halves[::-1]:
        assert recorder.events == []
        joining.report(half)
    out, in_ = recorder.only(TransferSent), recorder.only(TransferReceived)
    for event in (out, in_):
        assert (event.model_name, event.from_stage, event.from_replica) == ("tiny", 0, 1)
        assert (event.to_stage, event.to_replica) == (1, 3)
    assert (out.size_bytes, out.duration_seconds) == (298, 0.001)
    assert in_.duration_seconds == 0.002
    assert in_.in_flight_seconds == pytest.approx(0.008)


def test_receiver_that_was_there_first_received_since_the_sender_began(
    joining: Transfers, recorder: Any
) -> None:
    joining.report(sent(sent_at=100.0, duration_seconds=0.003))
    joining.report(received(received_at=100.004, duration_seconds=5.0))
    event = recorder.only(TransferReceived)
    assert event.in_flight_seconds == 0.0
    assert event.duration_seconds == pytest.approx(0.007)


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.0005, 0.009])
def test_receive_time_is_whole_when_the_put_returned_late(
    joining: Transfers, recorder: Any, late: float
) -> None:
    """The payload was there, and the sender's thread came to look at its clock after that."""
    joining.report(sent(sent_at=100.0 + late, duration_seconds=0.020))
    joining.report(received(received_at=100.0, duration_seconds=0.002))
    event = recorder.only(TransferReceived)
    assert event.duration_seconds == 0.002
    assert event.in_flight_seconds == 0.0


def test_receive_time_that_does_not_fit_the_put_is_kept(joining: Transfers, recorder: Any) -> None:
    joining.report(sent(sent_at=101.0, duration_seconds=0.5))
    joining.report(received(received_at=100.0, duration_seconds=0.002))
    assert recorder.only(TransferReceived).duration_seconds == 0.002


def test_time_in_flight_between_hosts_is_not_made_up(joining: Transfers, recorder: Any) -> None:
    joining.report(sent(clock="there"))
    joining.report(received())
    event = recorder.only(TransferReceived)
    assert event.in_flight_seconds is None
    assert (event.from_replica, event.duration_seconds) == (1, 0.002)


def test_payload_of_another_stage_with_the_same_key_is_another(
    joining: Transfers, recorder: Any
) -> None:
    joining.report(sent(from_stage=1, to_stage=2))
    joining.report(received())
    assert recorder.events == []


def test_payload_that_several_receivers_take_is_sent_once(
    joining: Transfers, recorder: Any
) -> None:
    joining.report(sent())
    for replica in (0, 1, 2):
        joining.report(received(to_replica=replica))
    assert len(recorder.of(TransferSent)) == 1
    assert [(e.from_replica, e.to_replica) for e in recorder.of(TransferReceived)] == [
        (1, 0),
        (1, 1),
        (1, 2),
    ]


def test_payload_that_is_sent_anew_leaves_the_first_unreceived(
    joining: Transfers, recorder: Any
) -> None:
    joining.report(sent(size_bytes=1))
    joining.report(sent(size_bytes=2))
    joining.report(received())
    assert [(e.size_bytes, e.to_replica) for e in recorder.of(TransferSent)] == [(1, None), (2, 3)]


def test_half_that_waited_too_long_is_told_without_the_other(
    joining: Transfers, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining.report(sent("never taken"))
    joining.report(received("never sent"))
    joining.forget_outdated()
    assert recorder.events == []
    monkeypatch.setattr(hops, "LONGEST_WAIT_SECONDS", 0.0)
    joining.forget_outdated()
    assert recorder.only(TransferSent).to_replica is None
    assert recorder.only(TransferReceived).from_replica is None
    joining.forget_outdated()
    assert len(recorder.events) == 2


def test_memory_is_bounded_and_the_oldest_are_told_first(
    joining: Transfers, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "MOST_WAITING", 3)
    monkeypatch.setattr(hops, "MOST_JOINED", 2)
    for number in range(5):
        joining.report(sent(f"{number}"))
    assert [event.key for event in recorder.of(TransferSent)] == ["0", "1"]
    for number in range(2, 5):
        joining.report(received(f"{number}"))
    assert (len(joining._sent), len(joining._received), len(joining._joined)) == (0, 0, 2)


def test_halves_that_wait_at_the_end_are_told(joining: Transfers, recorder: Any) -> None:
    joining.report(sent("a"))
    joining.report(received("b"))
    joining.forget_all()
    assert [event.key for event in recorder.events] == ["a", "b"]


# Payloads that never come


def test_attempts_that_fail_are_no_lost_payload_when_it_comes(
    joining: Transfers, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining.report(failed(operation="send"))
    joining.report(failed(operation="receive", reason="TimeoutError"))
    joining.report(sent())
    joining.report(failed(operation="receive", reason="TimeoutError"))
    joining.report(received())
    joining.report(failed(operation="receive"))
    monkeypatch.setattr(hops, "QUIET_SECONDS", 0.0)
    joining.forget_outdated()
    joining.forget_all()
    assert recorder.of(TransferFailed) == []
    assert len(recorder.of(TransferReceived)) == 1


def test_put_that_was_refused_and_then_succeeded_is_no_lost_payload(
    joining: Transfers, recorder: Any
) -> None:
    joining.report(failed(operation="send"))
    joining.report(sent())
    joining.forget_all()
    assert recorder.of(TransferFailed) == []


def test_lost_payload_is_told_once_when_nobody_tries_any_more(
    joining: Transfers, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    for _ in range(20):  # polls, told each ten seconds
        joining.report(failed(operation="receive", reason="OSError"))
        clock[0] += 10.0
    assert recorder.of(TransferFailed) == []
    clock[0] += hops.QUIET_SECONDS
    joining.forget_outdated()
    event = recorder.only(TransferFailed)
    assert (event.operation, event.replica, event.reason) == ("receive", 3, "OSError")
    assert event.model_name == "tiny"
    clock[0] += 10 * hops.QUIET_SECONDS
    joining.forget_outdated()
    joining.forget_all()
    assert len(recorder.of(TransferFailed)) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_payload_that_both_sides_failed_at_is_lost_once_by_its_sender(
    joining: Transfers, recorder: Any, order: int
) -> None:
    sides = [failed(operation="send", replica=1), failed(operation="receive", reason="OSError")]
    for half in sides[::order]:
        joining.report(half)
    joining.forget_all()
    event = recorder.only(TransferFailed)
    assert (event.operation, event.replica, event.reason) == ("send", 1, "refused")


def test_lost_payloads_that_wait_are_bounded(
    joining: Transfers, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops, "MOST_WAITING", 3)
    for number in range(5):
        joining.report(failed(f"{number}"))
    assert [event.key for event in recorder.of(TransferFailed)] == ["0", "1"]


# Whose a payload is


class Owner:
    def __init__(self, model_name: str | None, **replicas: int) -> None:
        self.request_id = f"{model_name}-1"
        self.model_name = model_name
        self.replicas = replicas

    def replica(self, stage: int) -> int | None:
        return self.replicas.get(f"stage{stage}")


def test_replicas_and_model_are_those_that_the_server_gave_the_request_to(
    hooks: Any, recorder: Any
) -> None:
    owners = {"a": Owner("painter", stage0=4, stage1=5), "b": Owner("talker", stage0=6)}
    joining = Transfers(hooks, lambda key, from_stage, to_stage: owners.get(key))
    joining.model_name = "sole"
    for key in ("a", "b", "c"):
        joining.report(sent(key, from_replica=None))
        joining.report(received(key, to_replica=7))
    for kind in (TransferSent, TransferReceived):
        edges = [(e.model_name, e.from_replica, e.to_replica) for e in recorder.of(kind)]
        assert edges == [("painter", 4, 5), ("talker", 6, 7), ("sole", None, 7)]
        assert [e.request_id for e in recorder.of(kind)] == ["painter-1", "talker-1", None]


def test_owner_that_becomes_known_before_the_other_half_comes_counts(
    hooks: Any, recorder: Any
) -> None:
    owners: dict[str, Owner] = {}
    joining = Transfers(hooks, lambda key, from_stage, to_stage: owners.get(key))
    joining.report(received("a", to_replica=None))
    owners["a"] = Owner("painter", stage0=4, stage1=5)
    joining.report(sent("a", from_replica=None))
    for kind in (TransferSent, TransferReceived):
        event = recorder.only(kind)
        assert (event.model_name, event.from_replica, event.to_replica) == ("painter", 4, 5)
        assert event.request_id == "painter-1"


def test_owner_that_is_forgotten_before_the_other_half_comes_counts(
    hooks: Any, recorder: Any
) -> None:
    owners = {"a": Owner("painter", stage0=4, stage1=5)}
    joining = Transfers(hooks, lambda key, from_stage, to_stage: owners.get(key))
    joining.report(sent("a", from_replica=None))
    owners.clear()
    joining.report(received("a", to_replica=1))
    event = recorder.only(TransferReceived)
    assert (event.model_name, event.from_replica, event.to_replica) == ("painter", 4, 1)
    assert event.request_id == "painter-1"


def test_lost_payload_is_its_sides(hooks: Any, recorder: Any) -> None:
    owner = Owner("painter", stage0=4, stage1=5)
    joining = Transfers(hooks, lambda key, from_stage, to_stage: owner)
    joining.report(failed("a", operation="send", replica=None))
    joining.report(failed("b", operation="receive", replica=None))
    joining.forget_all()
    assert [(e.model_name, e.replica) for e in recorder.of(TransferFailed)] == [
        ("painter", 4),
        ("painter", 5),
    ]


@given(
    count=st.integers(1, 12),
    lost_sent=st.sets(st.integers(0, 11)),
    lost_received=st.sets(st.integers(0, 11)),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_half_is_told_exactly_once_in_any_order(
    registry: HookRegistry,
    recorder: Any,
    count: int,
    lost_sent: set[int],
    lost_received: set[int],
    shuffle: Any,
) -> None:
    recorder.clear()
    halves: list[Any] = [sent(f"{n}") for n in range(count) if n not in lost_sent]
    halves += [received(f"{n}") for n in range(count) if n not in lost_received]
    shuffle.shuffle(halves)
    joining = Transfers(registry.hooks)
    for half in halves:
        joining.report(half)
    joining.forget_all()
    for kind, event_kind in ((SentHalf, TransferSent), (ReceivedHalf, TransferReceived)):
        told = recorder.of(event_kind)
        assert sorted(e.key for e in told) == sorted(h.key for h in halves if isinstance(h, kind))
        for event in told:
            alone = int(event.key) in lost_sent | lost_received
            assert (event.from_replica is None or event.to_replica is None) == alone
