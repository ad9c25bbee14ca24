"""Where exceptions of ours end: counted each time, logged once, and only ours."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.internal_errors import MOST_PLACES, InternalErrors, suppressed


def fail(place: str, error: BaseException) -> None:
    with suppressed(place):
        raise error


def test_errors_are_counted_by_place_and_logged_once_each(log: Any) -> None:
    for place in ("here", "there", "here", "here"):
        fail(place, RuntimeError(f"in {place}"))
    assert internal_errors.errors.counts() == {"here": 3, "there": 1}
    assert len(log.messages) == 2
    assert [str(record.exc_info[1]) for record in log.records] == ["in here", "in there"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError()])
def test_what_is_no_error_passes_uncounted(log: Any, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail("here", error)
    assert internal_errors.errors.counts() == {}
    assert log.messages == []


def test_block_that_does_not_fail_costs_nothing(log: Any) -> None:
    with suppressed("here"):
        done = True
    assert done
    assert internal_errors.errors.counts() == {}


def test_places_that_another_process_makes_up_take_no_more_memory() -> None:
    errors = InternalErrors()
    for number in range(MOST_PLACES + 50):
        errors.add(f"place {number}")
    assert len(errors.counts()) == MOST_PLACES + 1
    assert errors.counts()["elsewhere"] == 50
    assert sum(errors.counts().values()) == MOST_PLACES + 50


def test_whoever_sends_the_counts_is_called_after_each() -> None:
    errors, called = InternalErrors(), []
    errors.added = lambda: called.append(dict(errors.counts()))
    errors.add("here")
    errors.add("here", 2)
    assert called == [{"here": 1}, {"here": 3}]


def test_forked_child_counts_anew_even_if_a_thread_of_its_parent_was_counting() -> None:
    internal_errors.errors.add("in the parent")
    with internal_errors.errors._lock:  # as another thread may, which the child does not have
        child = os.fork()
        if child == 0:
            internal_errors.errors.add("in the child", 5)
            os._exit(internal_errors.errors.counts() != {"in the child": 5})
    assert os.waitpid(child, 0)[1] == 0
    assert internal_errors.errors.counts() == {"in the parent": 1}
