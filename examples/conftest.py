"""The tests import the packages from their folders; none is in the environment of the others.

That they install, and are found by a server, is for the end-to-end tests to say.
"""

from __future__ import annotations

import sys

import pytest

from testbed.paths import ROOT

sys.path[:0] = [str(package.parent) for package in ROOT.glob("examples/*/pyproject.toml")]


@pytest.fixture(autouse=True)
def _nothing_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_OMNI_ACCESS_LOG", raising=False)
