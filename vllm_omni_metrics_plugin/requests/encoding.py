"""Endpoints that encode videos themselves, and so know the frame rate after the engine has ended.

Such an endpoint opens :func:`encoding` around its call of the engine; the videos that it asked for
finish when it says the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Encoding:
    """The videos of one endpoint's call, and their frame rate once it is said."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[float | None], None]] = []
        self._said = False
        self._frame_rate: float | None = None

    def when_said(self, finish: Callable[[float | None], None]) -> None:
        """Call ``finish`` with the rate as soon as it is said, which may have been before."""
        if self._said:
            finish(self._frame_rate)
        else:
            self._waiting.append(finish)

    def encodes_at(self, frame_rate: float | None) -> None:
        """The endpoint encodes what it got at this rate in Hz, None if it does not say."""
        self._said = True
        self._frame_rate = frame_rate
        for finish in self._waiting:
            finish(frame_rate)
        self._waiting.clear()


_current: ContextVar[Encoding | None] = ContextVar("omni_metrics_encoding", default=None)


def current_encoding() -> Encoding | None:
    """That of the endpoint which is calling the engine in this context."""
    return _current.get()


@contextmanager
def encoding() -> Iterator[Encoding]:
    """For the length of the block, videos finish only when the endpoint says their frame rate."""
    endpoint = Encoding()
    token = _current.set(endpoint)
    try:
        yield endpoint
    finally:
        _current.reset(token)
