"""The asynchronous generator inside of a wrapper's: closed by the wrapper, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

#: Those that are open. An endpoint may drop a response in a reference cycle; the garbage collector
#: then has the event loop close every generator of the cycle, each in a task of its own, and the
#: tasks of a wrapper and of what is inside get into each other's way. What is held here is no
#: garbage: the wrapper alone is closed, and closes the other.
_open: set[AsyncGenerator[Any, None]] = set()


class closing:
    """``async with closing(parts):`` closes them at the end of the block, however that comes."""

    __slots__ = ("_parts",)

    def __init__(self, parts: AsyncGenerator[Any, None]) -> None:
        self._parts = parts

    async def __aenter__(self) -> None:
        _open.add(self._parts)

    async def __aexit__(self, *_: object) -> None:
        _open.discard(self._parts)
        await self._parts.aclose()
