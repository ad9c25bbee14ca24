"""The page of the engine's own families names each that the installed engine has, and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import vllm_omni
from prometheus_client.metrics import MetricWrapperBase
from vllm_omni import metrics
from vllm_omni.metrics import definitions

from testbed.pages import native

#: Sources in which a family may be made or named.
_ENGINE = Path(vllm_omni.__file__).parent
_NAMES = re.compile(r"""["']vllm_omni:(\w*)["']""")


def published() -> Iterator[str]:
    """The families that the modules of the engine's metrics make.

    Not those in the registry, which vLLM clears of them in other tests.
    """
    for module in pkgutil.iter_modules(metrics.__path__):
        made = vars(importlib.import_module(f"{metrics.__name__}.{module.name}"))
        for value in made.values():
            if isinstance(value, MetricWrapperBase):
                name = value._name.removeprefix(native.PREFIX)
                yield f"{name}_total" if value._type == "counter" else name


def test_each_family_that_the_engine_publishes_is_on_the_page() -> None:
    assert sorted(family.name for family in native.FAMILIES) == sorted(published())


def test_each_family_that_the_engine_names_is_on_the_page() -> None:
    on_the_page = {family.name.removesuffix("_total") for family in native.FAMILIES}
    named = {
        value.removeprefix(native.PREFIX)
        for value in vars(definitions).values()
        if isinstance(value, str) and value.startswith(native.PREFIX) and value != native.PREFIX
    }
    assert named == on_the_page


def test_nothing_else_of_the_engine_makes_families() -> None:
    makers = {
        path.relative_to(_ENGINE).parts[0]
        for path in _ENGINE.rglob("*.py")
        if "prometheus_client" in path.read_text() or _NAMES.search(path.read_text())
    }
    assert makers == {"metrics"}
