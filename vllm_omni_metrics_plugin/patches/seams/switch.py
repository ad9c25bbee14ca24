"""Letting go of a wrapper that cannot be taken out, as somebody else's wrapper holds on to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from vllm_omni_metrics_plugin.patches.seams.inner import closing

Function = Callable[..., Any]


class Switch:
    """What is called in one place: our wrapper, or else what it wraps."""

    __slots__ = ("_original", "_wrapper", "call")

    def __init__(self, wrapper: Function, original: Function) -> None:
        """It is on."""
        self._wrapper = wrapper
        self._original = original
        #: Calls that have begun go on as they began.
        self.call = wrapper

    @property
    def is_on(self) -> bool:
        return self.call is self._wrapper

    def on(self) -> None:
        self.call = self._wrapper

    def off(self) -> None:
        self.call = self._original

    def function(self) -> Function:
        """A function for the engine that calls :attr:`call`; it has the form of our wrapper."""
        wrapper = self._wrapper
        if inspect.isasyncgenfunction(wrapper):
            layer: Function = self._async_generator()
        elif inspect.isgeneratorfunction(wrapper):
            layer = self._generator()
        elif inspect.iscoroutinefunction(wrapper):
            layer = self._coroutine()
        else:
            layer = self._function()
        return functools.wraps(wrapper)(layer)

    def _function(self) -> Function:
        def function(*args: Any, **kwargs: Any) -> Any:
            return self.call(*args, **kwargs)

        return function

    def _coroutine(self) -> Function:
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await self.call(*args, **kwargs)

        return coroutine

    def _generator(self) -> Function:
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from self.call(*args, **kwargs))

        return generator

    def _async_generator(self) -> Function:
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            parts = self.call(*args, **kwargs)
            async with closing(parts):
                async for part in parts:
                    yield part
                    del part  # it may be large, and the next one may be long in coming

        return async_generator
