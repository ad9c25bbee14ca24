"""What the server asks of its own engine before anybody else does: nobody's requests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_warming: ContextVar[bool] = ContextVar("omni_metrics_warming", default=False)


def is_warming_up() -> bool:
    """Whether this code was called by a warm-up."""
    return _warming.get()


def wrap_warmup(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniOpenAIServingSpeech.warmup``: up to five requests, with the time to compile in them."""

    @functools.wraps(original)
    async def warmup(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _warming.set(True)
        try:
            return await original(self, *args, **kwargs)
        finally:
            _warming.reset(token)

    return warmup
