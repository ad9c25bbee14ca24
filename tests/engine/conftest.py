"""The installed engine, imported once for all tests of this folder."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.engine.installed import SEAMS
from vllm_omni_metrics_plugin.patches import Patches
from vllm_omni_metrics_plugin.patches.state import EngineState

# Before anything imports the engine: no network, no usage report, and no thread per core.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def engine_modules() -> dict[str, ModuleType]:
    """The engine's modules that have seams, by name; importing them takes some ten seconds."""
    pytest.importorskip("vllm_omni", reason="these tests are about the installed engine")
    return {seam.module: importlib.import_module(seam.module) for seam in SEAMS}


@pytest.fixture
def seams(engine_modules: dict[str, ModuleType], state: EngineState) -> Iterator[Patches]:
    """Every seam of the table applied to the real engine, and taken out again."""
    patches = Patches(SEAMS, state)
    patches.install()
    yield patches
    assert patches.revert() == []
