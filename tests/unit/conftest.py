"""For unit tests alone: a clock that stands until it is moved."""

from __future__ import annotations

import pytest


class Clock:
    """Takes the place of the module ``time`` in the code under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1_700_000_000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing = Clock()
    monkeypatch.setattr("vllm_omni_metrics_plugin.requests.time", standing)
    monkeypatch.setattr("vllm_omni_metrics_plugin.patches.client.time", standing)
    return standing
