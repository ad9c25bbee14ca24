"""A prompt that comes in pieces: ``AsyncOmni.generate`` takes an async generator for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.requests import StreamedInput


class ObservedPrompt(AsyncGenerator[Any, Any]):
    """The client's generator: every piece, exception and close passes as the same object."""

    __slots__ = ("_input", "_pieces")

    def __init__(self, pieces: AsyncGenerator[Any, Any], streamed: StreamedInput) -> None:
        self._pieces = pieces
        self._input = streamed

    async def asend(self, value: Any) -> Any:
        turn = self._ask()
        try:
            piece = await self._pieces.asend(value)
        except StopAsyncIteration:
            self._input.ends()
            raise
        finally:
            if turn is not None:
                turn.cancel()
        self._input.passes_on()
        return piece

    async def athrow(self, *args: Any) -> Any:
        return await self._pieces.athrow(*args)

    async def aclose(self) -> None:
        await self._pieces.aclose()

    def _ask(self) -> asyncio.Handle | None:
        with internal_errors.suppressed("a streamed input"):
            self._input.asked()
            # The loop gets its turn only if the generator has to wait for its client.
            return asyncio.get_running_loop().call_soon(self._input.waits)
        return None


def observed(prompt: Any) -> tuple[Any, StreamedInput | None]:
    """The prompt for the engine, and what is seen of it; None of one that is there as a whole."""
    if not isinstance(prompt, AsyncGenerator):
        return prompt, None
    streamed = StreamedInput()
    return ObservedPrompt(prompt, streamed), streamed
