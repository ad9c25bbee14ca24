"""The tests import the packages from their folders; none is in the environment of the others.

That they install, and are found by a server, is for the end-to-end tests to say.
"""

from __future__ import annotations

import os
import sys

import pytest

from testbed.paths import ROOT

sys.path[:0] = [str(package.parent) for package in ROOT.glob("examples/*/pyproject.toml")]


@pytest.fixture(autouse=True)
def _nothing_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("VLLM_OMNI_", "OTEL_")):
            monkeypatch.delenv(name)
