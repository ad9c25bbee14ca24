"""Whose a payload is: by its key, and by what the server knows of its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.test_transfers import received, sent
from vllm_omni_metrics_plugin.hooks import TransferReceived, TransferSent
from vllm_omni_metrics_plugin.patches.replicas import introduce
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.patches.transfer_keys import requests_of
from vllm_omni_metrics_plugin.requests import bindings

REQUEST = "speech-7_0-1a2b3c4d"


@pytest.mark.parametrize(
    ("key", "requests"),
    [
        (f"{REQUEST}_0_12", (REQUEST,)),
        (f"{REQUEST}_0_0_1_3", (f"{REQUEST}_0_0", REQUEST)[1:]),
        (f"omni_0_to_1_kv_cache_{REQUEST}", (REQUEST,)),
        (f"omni_0_to_1_kv_cache_{REQUEST}__cfg_text", (f"{REQUEST}__cfg_text",)),
        (f"omni_2_to_1_kv_cache_{REQUEST}", ()),
        (f"{REQUEST}_1_12", ()),
        # Either a stage's output or a rank's cache.
        ("a_0_0_0_4", ("a_0_0", "a")),
        ("", ()),
        ("_0_1", ()),
        ("somebodys own", ()),
    ],
)
def test_key_names_its_request(key: str, requests: tuple[str, ...]) -> None:
    assert requests_of(key, 0, 1) == requests


def give(state: EngineState, request: str, model: str, *replicas: int) -> None:
    """The request arrives, and one replica of each stage is given it."""
    state.requests.begin(request, request, model, 0.0)
    for stage, replica in enumerate(replicas):
        state.requests.submitted(request, stage, replica, None)


def hop(state: EngineState, key: str) -> None:
    """Both processes report, and neither knows its own number."""
    state.transfers.report(sent(key, from_replica=None))
    state.transfers.report(received(key, to_replica=None))


def edges(recorder: Any, kind: type) -> list[tuple[Any, ...]]:
    return [(e.model_name, e.from_replica, e.to_replica) for e in recorder.of(kind)]


@pytest.mark.parametrize(
    "key", [f"{REQUEST}_0_3", f"omni_0_to_1_kv_cache_{REQUEST}", f"{REQUEST}_0_0_1_1"]
)
def test_hop_of_processes_without_a_number_has_its_edge(
    state: EngineState, recorder: Any, key: str
) -> None:
    give(state, REQUEST, "painter", 1, 2)
    hop(state, key)
    assert edges(recorder, TransferSent) == [("painter", 1, 2)]
    assert edges(recorder, TransferReceived) == [("painter", 1, 2)]


def test_companion_goes_where_its_parent_went(state: EngineState, recorder: Any) -> None:
    give(state, REQUEST, "painter", 1, 2)
    companion = f"{REQUEST}__cfg_text"
    state.requests.submitted(companion, 0, 3, REQUEST)
    hop(state, f"omni_0_to_1_kv_cache_{companion}")
    assert edges(recorder, TransferReceived) == [("painter", 3, 2)]


def test_hop_that_is_told_when_its_request_is_over_has_its_edge(
    state: EngineState, recorder: Any
) -> None:
    give(state, REQUEST, "painter", 1, 2)
    state.requests.by_id[REQUEST].end(None)
    hop(state, f"{REQUEST}_0_3")
    assert edges(recorder, TransferReceived) == [("painter", 1, 2)]


def test_requests_that_are_remembered_are_bounded(
    state: EngineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bindings, "MOST_REQUESTS", 3)
    for number in range(10):
        give(state, f"r{number}", "painter", 0)
        state.requests.submitted(f"r{number}__cfg_text", 0, 0, f"r{number}")
        state.requests.by_id[f"r{number}"].end(None)
    assert len(state.requests.bindings) == 3


class Engine:
    stage_vllm_configs: tuple[Any, ...] = ()
    stage_pools: tuple[Any, ...] = ()


class Omni:
    def __init__(self, model: str) -> None:
        self.model = model
        self.engine = Engine()


def test_engines_that_live_together_label_their_own_hops(state: EngineState, recorder: Any) -> None:
    alive = [Omni("talker"), Omni("painter")]
    for omni in alive:
        introduce(omni, state)
    for request, model in (("a", "talker"), ("b", "painter")):
        give(state, request, model, 0, 0)
    for key in ("a_0_0", "b_0_0", "a_0_1", "unknown_0_0"):
        hop(state, key)
    models = [model for model, *_ in edges(recorder, TransferReceived)]
    assert models == ["talker", "painter", "talker", None]


@pytest.mark.parametrize("names", [["talker"], ["talker", "talker"]])
def test_hop_of_an_unknown_request_is_the_only_models(
    state: EngineState, recorder: Any, names: list[str]
) -> None:
    alive: list[Callable[..., Any] | Any] = [Omni(name) for name in names]
    for omni in alive:
        introduce(omni, state)
    hop(state, "unknown_0_0")
    assert edges(recorder, TransferReceived) == [("talker", None, None)]
