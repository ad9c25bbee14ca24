"""What a server would log, for those who ask before there is one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def warnings_logged() -> Iterator[list[str]]:
    """Collects the warnings that a server would log meanwhile."""
    messages: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage().removeprefix("omni-metrics: "))

    logger = logging.getLogger("vllm.omni_metrics")
    handler = Collecting(logging.WARNING)
    propagates, level = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
        logger.setLevel(level)
