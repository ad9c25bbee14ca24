"""What is seen of a connector: each payload once, in whatever method it is put or got."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Log
from vllm_omni_metrics_plugin.channel.frames import (
    FailedHalf,
    ReceivedHalf,
    SentHalf,
    WireEvent,
)
from vllm_omni_metrics_plugin.hooks import TransferReceived, TransferSent
from vllm_omni_metrics_plugin.patches import connectors, process
from vllm_omni_metrics_plugin.patches.state import EngineState


class OmniConnectorBase:
    """By its name, the engine's abstract class: nothing of it is wrapped."""

    def put(self, from_stage: str, to_stage: str, put_key: str, data: Any) -> Any:
        raise NotImplementedError

    def get(self, from_stage: str, to_stage: str, get_key: str, metadata: Any = None) -> Any:
        raise NotImplementedError

    def get_with_deadline(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def connector_class() -> type:
    class Connector(OmniConnectorBase):
        """Gives back what it is told to."""

        def __init__(self, answer: Any = None) -> None:
            self.answer = answer

        def put(self, from_stage: str, to_stage: str, put_key: str, data: Any) -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        def get(self, from_stage: str, to_stage: str, get_key: str, metadata: Any = None) -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        def get_with_deadline(
            self, from_stage: str, to_stage: str, get_key: str, *, deadline: float
        ) -> Any:
            return self.get(from_stage, to_stage, get_key)

    return Connector


class Halves:
    """What a stage's process reports."""

    def __init__(self) -> None:
        self.events: list[WireEvent] = []

    def of(self, kind: type[WireEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def only(self, kind: type[WireEvent]) -> Any:
        [event] = self.of(kind)
        return event


@pytest.fixture(autouse=True)
def _in_replica_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connectors, "own_replica", lambda: 2)


@pytest.fixture
def halves(state: EngineState) -> Halves:
    """In the place of the channel."""
    halves = Halves()
    state.report = halves.events.append
    return halves


@pytest.fixture
def make(connector_class: type, state: EngineState) -> Callable[..., Any]:
    class Factory:
        @classmethod
        def create_connector(cls, spec: Any) -> Any:
            return spec()

    wrapped = connectors.wrap_create_connector(Factory.__dict__["create_connector"].__func__, state)
    return lambda answer, cls=connector_class: wrapped(Factory, lambda: cls(answer))


def put(connector: Any) -> Any:
    return connector.put(from_stage="1", to_stage="2", put_key="speech_1_0", data=object())


def get(connector: Any) -> Any:
    return connector.get("0", "1", "speech_0_0", None)


def test_payload_that_is_put_is_sent_by_this_replica(make: Any, halves: Halves) -> None:
    assert put(make((True, 298, {"meta": 1}))) == (True, 298, {"meta": 1})
    event = halves.only(SentHalf)
    assert (event.from_stage, event.from_replica) == (1, 2)
    assert event.to_stage == 2
    assert (event.key, event.connector, event.size_bytes) == ("speech_1_0", "Connector", 298)
    assert event.duration_seconds >= 0.0


def test_payload_that_is_got_is_received_by_this_replica(make: Any, halves: Halves) -> None:
    payload = object()
    assert get(make((payload, 298))) == (payload, 298)
    event = halves.only(ReceivedHalf)
    assert event.from_stage == 0
    assert (event.to_stage, event.to_replica) == (1, 2)
    assert (event.key, event.size_bytes) == ("speech_0_0", 298)


def test_get_that_gets_nothing_is_no_event(make: Any, halves: Halves) -> None:
    connector = make(None)
    for _ in range(100):
        assert get(connector) is None
    assert halves.events == []


@pytest.mark.parametrize(
    ("call", "operation", "edge"), [(put, "send", (1, 2)), (get, "receive", (0, 1))]
)
def test_error_reaches_the_engine_and_is_counted_by_its_class(
    make: Any, halves: Halves, call: Any, operation: str, edge: tuple[int, int]
) -> None:
    with pytest.raises(OSError, match="no space"):
        call(make(OSError("no space")))
    event = halves.only(FailedHalf)
    assert (event.operation, event.replica, event.reason) == (operation, 2, "OSError")
    assert (event.from_stage, event.to_stage) == edge


def test_put_that_is_refused_is_a_failure_and_no_hop(make: Any, halves: Halves) -> None:
    assert put(make((False, 0, None))) == (False, 0, None)
    assert halves.only(FailedHalf).reason == "refused"
    assert halves.of(SentHalf) == []


def test_attempts_at_one_payload_are_told_now_and_then(
    make: Any, halves: Halves, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = make((False, 0, None))
    for _ in range(500):
        put(connector)
    assert len(halves.of(FailedHalf)) == 1
    connector.put("1", "2", "another_1_0", object())
    assert len(halves.of(FailedHalf)) == 2
    monkeypatch.setattr(connectors, "_TELL_AGAIN_SECONDS", 0.0)
    put(connector)
    assert len(halves.of(FailedHalf)) == 3


def test_payload_that_fails_again_after_a_success_is_told_again(make: Any, halves: Halves) -> None:
    connector = make((False, 0, None))
    put(connector)
    connector.answer = (True, 298, None)
    put(connector)
    connector.answer = (False, 0, None)
    put(connector)
    assert [type(half) for half in halves.events] == [FailedHalf, SentHalf, FailedHalf]


def test_payloads_that_failed_are_remembered_up_to_a_number(
    make: Any, halves: Halves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectors, "_MOST_FAILED", 2)
    connector = make((False, 0, None))
    for key in ("a_1_0", "b_1_0", "c_1_0", "a_1_0", "c_1_0"):
        connector.put("1", "2", key, object())
    assert [half.key for half in halves.of(FailedHalf)] == ["a_1_0", "b_1_0", "c_1_0", "a_1_0"]


def test_methods_that_call_one_another_count_once(
    make: Any, halves: Halves, connector_class: type
) -> None:
    class Wrapping(connector_class):  # type: ignore[misc]
        def put(self, from_stage: str, to_stage: str, put_key: str, data: Any) -> Any:
            return super().put(from_stage, to_stage, put_key, data)

    make((True, 298, None))  # the base class is in use of its own as well
    connector = make((True, 298, None), cls=Wrapping)
    put(connector)
    assert len(halves.of(SentHalf)) == 1
    connector.answer = (object(), 298)
    connector.get_with_deadline("0", "1", "speech_0_0", deadline=1.0)
    assert len(halves.of(ReceivedHalf)) == 1
    connector.answer = OSError("twice on its way up")
    with pytest.raises(OSError, match="twice"):
        put(connector)
    assert len(halves.of(FailedHalf)) == 1


def test_same_payload_got_again_is_another_hop(make: Any, halves: Halves) -> None:
    connector = make((object(), 298))
    for _ in range(3):
        get(connector)
    assert len(halves.of(ReceivedHalf)) == 3


def test_class_is_wrapped_once_however_many_are_made(
    make: Any, halves: Halves, connector_class: Any
) -> None:
    make((True, 1, None))
    wrapper = connector_class.put
    put(make((True, 1, None)))
    assert connector_class.put is wrapper
    assert len(halves.of(SentHalf)) == 1


def test_abstract_class_is_left_alone(make: Any, connector_class: type) -> None:
    before = dict(vars(OmniConnectorBase))
    make((True, 1, None))
    assert dict(vars(OmniConnectorBase)) == before


@pytest.mark.parametrize("answer", [(True,), "odd", (True, "many", None)])
def test_answer_that_makes_no_sense_is_passed_on(
    make: Any, halves: Halves, log: Any, answer: Any
) -> None:
    assert put(make(answer)) is answer
    assert len(log.messages) <= 1


def test_stage_that_has_no_number_is_contained(make: Any, halves: Halves, log: Any) -> None:
    connector = make((True, 298, None))
    assert connector.put("prefill", "decode", "key", None) == (True, 298, None)
    assert halves.events == []
    assert len(log.messages) == 1


def test_long_key_keeps_the_end_that_tells_it_from_others(make: Any, halves: Halves) -> None:
    make((True, 1, None)).put("0", "1", "x" * 600 + "_chunk_7", None)
    key = halves.only(SentHalf).key
    assert len(key) == 512
    assert key.endswith("_chunk_7")


def test_stage_inside_the_server_has_its_halves_joined_at_once(make: Any, recorder: Any) -> None:
    put(make((True, 298, None)))
    assert recorder.events == [], "it waits for the receiver"
    connector = make((object(), 298))
    connector.get("1", "2", "speech_1_0")
    assert recorder.only(TransferSent).to_replica == 2
    assert recorder.only(TransferReceived).from_replica == 2
    assert recorder.only(TransferReceived).in_flight_seconds is not None


@pytest.mark.parametrize(
    ("variable", "name", "replica"),
    [
        ("3", "StageEngineCoreProc_stage1_replica0", 3),
        (None, "StageEngineCoreProc_stage1_replica7_DP0", 7),
        ("", "MainProcess", None),
        ("-1", "MainProcess", None),
    ],
)
def test_own_replica_is_what_the_engine_says(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, name: str, replica: int | None
) -> None:
    monkeypatch.undo()
    if variable is not None:
        monkeypatch.setenv("VLLM_OMNI_REPLICA_ID", variable)
    monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
    assert process.own_replica.__wrapped__() == replica


def test_connector_of_a_release_without_deadlines_is_seen_all_the_same(
    make: Callable[..., Any], connector_class: Any, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    for cls in connector_class.__mro__[:2]:
        monkeypatch.delattr(cls, "get_with_deadline")

    connector = make(("payload", 5))

    assert connectors._WRAPPED in vars(type(connector).get)
    assert log.messages == []
