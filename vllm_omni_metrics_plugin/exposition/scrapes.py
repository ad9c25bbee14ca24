"""One scrape at a time, in a thread of its own; who asks meanwhile shares the next one."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.exposition.accept import CONTENT_TYPES, Format, Wish
from vllm_omni_metrics_plugin.exposition.page import END, Page, openmetrics_of, text_of

#: The fastest: a page is mostly the same words again.
_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS


class Answer(NamedTuple):
    """A page as it is sent, piece by piece."""

    pieces: Sequence[bytes]
    headers: tuple[tuple[str, str], ...]


class Scrapes:
    """The scrapes of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._page = Page(registry)
        self._lock = threading.Lock()
        #: Those that are not begun.
        self._waiting: dict[Wish, Future[Answer]] = {}
        self._wishes: SimpleQueue[Wish] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, wish: Wish) -> Future[Answer]:
        """An answer that is begun after this call; does not block.

        Others who ask for the same may get the same one: it is not to be cancelled.
        """
        with self._lock:
            answer = self._waiting.get(wish)
            if answer is None:
                answer = self._waiting[wish] = Future()
                self._wishes.put(wish)
            if self._thread is None:
                name = "omni-metrics-scrapes"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        return answer

    def _run(self) -> None:
        while True:
            wish = self._wishes.get()
            with self._lock:
                answer = self._waiting.pop(wish)
            try:
                answer.set_result(self._answer(wish))
            except BaseException as error:  # who asked gets it, and the next one is answered
                answer.set_exception(error)

    def _answer(self, wish: Wish) -> Answer:
        written, pieces = self._written(wish)
        headers = [("content-type", CONTENT_TYPES[written])]
        if wish.gzip:
            pieces = _compressed(pieces)
            headers.append(("content-encoding", "gzip"))
        headers.append(("content-length", str(sum(map(len, pieces)))))
        return Answer(pieces, tuple(headers))

    def _written(self, wish: Wish) -> tuple[Format, list[bytes]]:
        if wish.names:
            some = self._registry.restricted_registry(wish.names)
            if wish.format == "text":
                return "text", [text_of(some).encode()]
            return "openmetrics", [(openmetrics_of(some) + END).encode()]
        page = self._page
        try:
            return wish.format, page.text() if wish.format == "text" else page.openmetrics()
        except Exception as error:
            body = generate_latest(self._registry)  # fails, too, if a collector does
            internal_errors.report("writing /metrics", error)
            return "text", [body]


def _compressed(pieces: Iterable[bytes]) -> list[bytes]:
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return [*map(compressor.compress, pieces), compressor.flush()]
