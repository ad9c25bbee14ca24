"""The layers of the tests: which go first, and which there are no results of without an engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: The quick ones first: who breaks something knows it soon.
LAYERS = (
    HERE / "unit",
    HERE.parent / "examples",
    HERE / "process",
    HERE / "engine",
    HERE / "contract",
    HERE / "e2e",
)
NEED_ENGINE = {HERE / "engine", HERE / "contract", HERE / "e2e"}


def engine_is_installed() -> bool:
    """Finds it without importing it."""
    return importlib.util.find_spec("vllm_omni") is not None


class WithoutEngine(pytest.Module):
    """A module of tests that is not even imported."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        layer = self.path.relative_to(HERE).parts[0]
        pytest.skip(f"tests/{layer} needs the engine: make test installs it and runs everything")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    if NEED_ENGINE.isdisjoint(module_path.parents) or engine_is_installed():
        return None
    return WithoutEngine.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_layer)  # keeps the order within a layer


def _layer(item: pytest.Item) -> int:
    return next((n for n, folder in enumerate(LAYERS) if folder in item.path.parents), len(LAYERS))
