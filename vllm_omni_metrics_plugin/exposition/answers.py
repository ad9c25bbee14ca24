"""The ASGI application that answers for ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.exposition.accept import wish
from vllm_omni_metrics_plugin.exposition.scrapes import Answer, Scrapes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]

_METHODS = ("GET", "HEAD")
_ALLOW = ", ".join(_METHODS)


class Answers:
    """Who answers scrapes, by registry."""

    def __init__(self) -> None:
        self._scrapes: dict[CollectorRegistry, Scrapes] = {}

    def scrapes(self, registry: CollectorRegistry) -> Scrapes:
        """Those of a registry are one queue, whoever asks."""
        found = self._scrapes.get(registry)
        if found is None:
            found = self._scrapes[registry] = Scrapes(_shown(registry))
        return found

    def application(self, registry: CollectorRegistry, otherwise: Application) -> Application:
        """Answers for a registry's page; ``otherwise`` does where we cannot."""
        scrapes = self.scrapes(registry)

        async def metrics(scope: Message, receive: Receive, send: Send) -> None:
            try:
                status, answer = await _answered(scope, scrapes)
            except Exception as error:
                internal_errors.report("answering a scrape", error)
                await otherwise(scope, receive, send)
                return
            headers = [(name.encode(), value.encode()) for name, value in answer.headers]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if scope["method"] != "HEAD":
                for piece in answer.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        return metrics


def _shown(registry: CollectorRegistry) -> CollectorRegistry:
    """What there is to show of a registry: of several servers, what all of them have written.

    The engine registers this process's families of its routes beside that, which are in it.
    """
    for collector in registry._collector_to_names:
        if isinstance(collector, MultiProcessCollector):
            written = CollectorRegistry()
            written.register(collector)
            return written
    return registry


async def _answered(scope: Message, scrapes: Scrapes) -> tuple[int, Answer]:
    if scope["method"] not in _METHODS:
        return 405, Answer((), (("allow", _ALLOW), ("content-length", "0")))
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    asked = wish(
        _header(headers, b"accept"),
        _header(headers, b"accept-encoding"),
        scope.get("query_string", b"").decode("latin-1"),
    )
    # A client that leaves must not take the answer along that others wait for.
    return 200, await asyncio.shield(asyncio.wrap_future(scrapes.ask(asked)))


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """All of one name, as one."""
    return ",".join(value.decode("latin-1") for found, value in headers if found.lower() == name)
