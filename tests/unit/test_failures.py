"""Why a request failed: what an exception of the engine says, and who is asked first."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.hooks import RequestFinished
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests.failure import Failure, cause_of, failure_of
from vllm_omni_metrics_plugin.requests.outcome import CUT_SHORT

WORDS = get_args(Failure)


def named(name: str, base: type[Exception] = Exception) -> type[Exception]:
    """A class with the name of one of the engine's."""
    return type(name, (base,), {})


SERVERS_OWN = named("VLLMServerError")
DEAD = named("EngineDeadError", SERVERS_OWN)


def test_every_failure_is_a_reason_of_the_catalogue() -> None:
    known = catalog.BY_STEM["requests_failed_total"].known["reason"]
    assert sorted(known) == sorted(WORDS)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (None, None),
        (DEAD("died"), "dead_replica"),
        (named("OmniEngineDeadError", DEAD)("died"), "dead_replica"),
        (named("StageUnavailableError", RuntimeError)("none"), "dead_replica"),
        (named("EngineGenerateError", SERVERS_OWN)("failed"), "stage_error"),
        (named("GenerationError", SERVERS_OWN)("failed"), "stage_error"),
        (named("QueueOverflowError")("busy"), "queue_full"),
        (named("MaxQueuedTokensError")("busy"), "queue_full"),
        (TimeoutError(), "timeout"),
        (ValueError("too long"), "invalid_request"),
        (named("OmniClientError", ValueError)("no"), "invalid_request"),
        (named("VLLMValidationError", named("VLLMClientError"))("no"), "invalid_request"),
        (RuntimeError("asleep"), "other"),
        (KeyError("x"), "other"),
        # What the closest class says goes before what it derives from.
        (named("EngineDeadError", ValueError)("died"), "dead_replica"),
    ],
    ids=repr,
)
def test_cause_is_told_by_the_classes_of_an_exception(
    state: EngineState, recorder: Any, error: BaseException | None, cause: str | None
) -> None:
    assert cause_of(error) == cause
    if error is not None:
        state.requests.begin("a", "a", "tiny", 0.0).end(error)
        assert recorder.only(RequestFinished).failure == cause


def told(outcome: str, **changes: Any) -> str | None:
    facts = {
        **{"ending": "ended", "cause": None, "exchange": None, "failed": False},
        **{"stopped": False, "delivered": True, "finish_reasons": {"stop"}},
    }
    return failure_of(outcome, **{**facts, **changes})


@pytest.mark.parametrize("outcome", ["stop", "length", "repetition"])
def test_request_that_was_not_cut_short_has_not_failed(outcome: str) -> None:
    assert told(outcome, finish_reasons={"error", "abort"}) is None


@pytest.mark.parametrize("outcome", sorted(CUT_SHORT))
@pytest.mark.parametrize("ending", ["ended", "closed", "raised"])
@pytest.mark.parametrize("cause", [None, *WORDS])
@pytest.mark.parametrize("delivered", [False, True])
def test_request_that_was_cut_short_has_a_reason_whatever_is_known(
    outcome: str, ending: str, cause: str | None, delivered: bool
) -> None:
    assert told(outcome, ending=ending, cause=cause, delivered=delivered) in WORDS


@pytest.mark.parametrize(
    ("outcome", "facts", "failure"),
    [
        ("rejected", {"ending": "raised", "cause": "queue_full"}, "queue_full"),
        ("rejected", {"ending": "raised", "cause": "other"}, "invalid_request"),
        ("error", {"ending": "raised", "cause": "dead_replica"}, "dead_replica"),
        ("error", {"ending": "ended", "delivered": False}, "no_output"),
        ("error", {"ending": "closed", "delivered": False}, "other"),
        ("error", {"finish_reasons": {"error"}, "delivered": False}, "stage_error"),
        ("error", {"failed": True}, "endpoint_error"),
        ("abort", {"ending": "closed"}, "client_abort"),
    ],
)
def test_first_cause_decides_without_an_exchange(
    outcome: str, facts: dict[str, Any], failure: str
) -> None:
    assert told(outcome, **facts) == failure
