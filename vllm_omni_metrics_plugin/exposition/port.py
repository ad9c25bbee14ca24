"""A port of its own for ``/metrics``, for clusters that show Prometheus no other."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_omni_metrics_plugin import api_servers, internal_errors
from vllm_omni_metrics_plugin.exposition.accept import wish
from vllm_omni_metrics_plugin.exposition.answers import Answers
from vllm_omni_metrics_plugin.exposition.scrapes import Scrapes

logger = logging.getLogger("vllm.omni_metrics")

_PATHS = ("/metrics", "/metrics/")
#: How long a client may be silent.
_PATIENCE_SECONDS = 10.0
#: How long a page may take.
_ANSWER_SECONDS = 60.0


class Port:
    """Opened once the engine is there, for what it forks would keep the socket; closed at exit."""

    def __init__(self, number: int, answers: Answers) -> None:
        self._number = number
        self._answers = answers
        self._server: _Server | None = None

    def open(self) -> None:
        """Listen; says so if that cannot be, and goes without."""
        if self._server is not None:
            return
        try:
            self._server = server = _Server(self._number)
        except OSError as error:
            logger.warning(
                "omni-metrics: VLLM_OMNI_METRICS_PORT=%d cannot be opened (%s); /metrics is shown "
                "on the API's port alone",
                self._number,
                error,
            )
            return
        server.scrapes = self._answers.scrapes(shown())
        name = "omni-metrics-port"
        threading.Thread(target=server.serve_forever, name=name, daemon=True).start()
        atexit.register(self.close)
        logger.info("omni-metrics: /metrics is on port %d, too", self._number)

    def close(self) -> None:
        """Listen no more."""
        atexit.unregister(self.close)
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


def shown() -> CollectorRegistry:
    """What this server shows: beside others, what all of them have written."""
    if not api_servers.is_on(os.environ):
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    scrapes: Scrapes

    def __init__(self, number: int) -> None:
        super().__init__(("", number), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's, which asks the resolver for the host's name.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def handle_error(self, *_: Any) -> None:
        """A client that left, which is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        """A scrape is no news."""

    def _answer(self, *, with_body: bool) -> None:
        address = urlsplit(self.path)
        if address.path not in _PATHS:
            self.send_error(404)
            return
        accept, encoding = (
            ",".join(self.headers.get_all(name, ())) for name in ("accept", "accept-encoding")
        )
        asked = wish(accept, encoding, address.query)
        try:
            pieces, headers = self.server.scrapes.ask(asked).result(_ANSWER_SECONDS)
        except Exception as error:
            internal_errors.report("answering a scrape", error)
            self.send_error(500)
            return
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.writelines(pieces)
