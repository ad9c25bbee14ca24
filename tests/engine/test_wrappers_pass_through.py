"""Every wrapper of the table hands on whatever a later release of the engine adds to a call."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter
from types import ModuleType
from typing import Any

import pytest

from tests.engine.installed import SEAMS
from vllm_omni_metrics_plugin.patches import connectors
from vllm_omni_metrics_plugin.patches.seams.seam import Seam, apply, find
from vllm_omni_metrics_plugin.patches.state import EngineState

BY_POSITION, BY_NAME = "added_by_position", "added_by_name"
#: By seam, the argument that its wrapper replaces on purpose.
REPLACED = {
    "token_times": "log_stats",
    "stat_logger": "log_stats",
    "scheduler_init": "log_stats",
    "idle_recorded": "client",
}
STARS = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
NOT_BY_POSITION = (*STARS, Parameter.KEYWORD_ONLY)


def with_more_parameters(signature: inspect.Signature) -> inspect.Signature:
    """What a later release may make of it: one more by position, and one more by name."""
    parameters = list(signature.parameters.values())
    by_position = [p for p in parameters if p.kind not in NOT_BY_POSITION]
    rest = parameters[len(by_position) :]
    named = [p for p in rest if p.kind is not Parameter.VAR_KEYWORD]
    more: list[Parameter] = [*by_position]
    if not any(p.kind is Parameter.VAR_POSITIONAL for p in rest):
        more.append(Parameter(BY_POSITION, Parameter.POSITIONAL_OR_KEYWORD, default=None))
    more += [
        *named,
        Parameter(BY_NAME, Parameter.KEYWORD_ONLY, default=None),
        *rest[len(named) :],
    ]
    return signature.replace(parameters=more)


class LaterEngine:
    """A class with the seam's method as a later release may have it, which notes its calls."""

    def __init__(self, seam: Seam) -> None:
        owner, method = find(seam)
        place = vars(owner)[method]
        self._kind = type(place) if isinstance(place, (staticmethod, classmethod)) else None
        original = place.__func__ if self._kind is not None else place
        self.signature = with_more_parameters(inspect.signature(original))
        self.bound = seam.form != "static function"
        #: Of each call, what it was given, by parameter; without defaults.
        self.calls: list[dict[str, Any]] = []
        reached = self._reached(seam)
        reached.__signature__ = self.signature  # type: ignore[attr-defined]
        self.cls = type("Later", (), {method: self._kind(reached) if self._kind else reached})
        self._method = method

    def call(self, *args: Any, **kwargs: Any) -> None:
        """As the engine does; initialisers are called like any other method."""
        made = getattr(object.__new__(self.cls), self._method)(*args, **kwargs)
        if inspect.isgenerator(made):
            list(made)
        elif inspect.isasyncgen(made):
            asyncio.run(_drained(made))
        elif inspect.iscoroutine(made):
            asyncio.run(_awaited(made))

    def _reached(self, seam: Seam) -> Callable[..., Any]:
        def note(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(self.signature.bind(*args, **kwargs).arguments)
            if self.bound:
                del given[next(iter(given))]
            self.calls.append(given)

        def function(*args: Any, **kwargs: Any) -> None:
            note(args, kwargs)

        async def coroutine(*args: Any, **kwargs: Any) -> None:
            note(args, kwargs)

        def generator(*args: Any, **kwargs: Any) -> Iterator[object]:
            note(args, kwargs)
            yield object()

        async def async_generator(*args: Any, **kwargs: Any) -> Any:
            note(args, kwargs)
            yield object()

        forms: Mapping[str, Callable[..., Any]] = {
            "coroutine": coroutine,
            "generator": generator,
            "async generator": async_generator,
        }
        return forms.get(seam.form, function)


async def _drained(parts: Any) -> None:
    async for _ in parts:
        pass


async def _awaited(awaitable: Any) -> None:
    await awaitable


def as_positions(parameters: list[Parameter]) -> tuple[list[Any], dict[str, Any]]:
    """A value for each parameter, by position wherever it may be."""
    args = [value(p) for p in parameters if p.kind not in NOT_BY_POSITION]
    return args, {p.name: value(p) for p in parameters if p.kind is Parameter.KEYWORD_ONLY}


def as_names(parameters: list[Parameter]) -> tuple[list[Any], dict[str, Any]]:
    """A value for each parameter, by name wherever it may be."""
    args = [value(p) for p in parameters if p.kind is Parameter.POSITIONAL_ONLY]
    named = [p for p in parameters if p.kind not in (Parameter.POSITIONAL_ONLY, *STARS)]
    return args, {p.name: value(p) for p in named}


def as_few(parameters: list[Parameter]) -> tuple[list[Any], dict[str, Any]]:
    """A value for each parameter that needs one: what is left out, the engine says itself."""
    return as_positions([p for p in parameters if p.default is Parameter.empty])


def value(parameter: Parameter) -> str:
    return f"the value of {parameter.name}"


@pytest.mark.parametrize("arguments", [as_positions, as_names, as_few])
@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
def test_call_with_more_arguments_than_are_known_reaches_the_engine_unchanged(
    engine_modules: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    state: EngineState,
    seam: Seam,
    arguments: Callable[[list[Parameter]], tuple[list[Any], dict[str, Any]]],
) -> None:
    later = LaterEngine(seam)
    module = ModuleType("a_later_engine")
    vars(module)["Later"] = later.cls
    monkeypatch.setitem(sys.modules, module.__name__, module)
    method = seam.attribute.partition(".")[2]
    place = dataclasses.replace(seam, module=module.__name__, attribute=f"Later.{method}")
    args, kwargs = arguments(list(later.signature.parameters.values())[later.bound :])

    later.call(*args, **kwargs)
    [untouched] = later.calls
    assert arguments is as_few or (BY_NAME in untouched)
    later.calls.clear()

    applied = apply(place, state)
    assert applied is not None
    try:
        later.call(*args, **kwargs)
    finally:
        applied.revert()
    assert later.calls, "the engine was called"
    for call in (untouched, *later.calls):
        call.pop(REPLACED.get(seam.name, ""), None)
    assert later.calls == [untouched] * len(later.calls)


class LaterConnector:
    """A connector with one more parameter by position, and one more by name, than the base has."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def put(
        self,
        from_stage: str,
        to_stage: str,
        put_key: str,
        data: Any,
        more: Any = None,
        *,
        named: Any = None,
    ) -> tuple[bool, int, None]:
        self.calls.append((from_stage, to_stage, put_key, data, more, named))
        return True, 7, None

    def get(
        self,
        from_stage: str,
        to_stage: str,
        get_key: str,
        metadata: Any = None,
        more: Any = None,
        *,
        named: Any = None,
    ) -> tuple[Any, int]:
        self.calls.append((from_stage, to_stage, get_key, metadata, more, named))
        return None, 7


def test_connector_is_given_all_that_its_caller_gives(state: EngineState) -> None:
    create = connectors.wrap_create_connector(lambda _: LaterConnector(), state)
    connector = create(object)
    assert connector.put("0", "1", "key", "data", "more", named="named") == (True, 7, None)
    connector.put(from_stage="0", to_stage="1", put_key="key", data="data", named="named")
    assert connector.get("0", "1", "key", "metadata", "more", named="named") == (None, 7)
    connector.get(from_stage="0", to_stage="1", get_key="key", more="more")
    assert connector.calls == [
        ("0", "1", "key", "data", "more", "named"),
        ("0", "1", "key", "data", None, "named"),
        ("0", "1", "key", "metadata", "more", "named"),
        ("0", "1", "key", None, "more", None),
    ]
