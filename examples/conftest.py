"""The tests import the packages as pip installed them, outside of the environment of the others."""

from __future__ import annotations

import sys

import pytest

from testbed.paths import EXAMPLES

sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(autouse=True)
def _nothing_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_OMNI_ACCESS_LOG", "VLLM_OMNI_SLO", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
