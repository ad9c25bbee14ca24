"""A hook plugin: a message to Slack, or any webhook, when a replica has left or is back."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks import Configured, ReplicaJoined, ReplicaLeft, hookimpl

logger = logging.getLogger("vllm.omni_replica_alert")

TIMEOUT_SECONDS = 5.0


class Replica(NamedTuple):
    model: str
    stage: int
    replica: int


class ReplicaAlert:
    """Knows who is away and who was told of it; a thread of its own tells the difference."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._url = ""
        self._changed = threading.Event()
        #: Who left and has not come back, with the engine's reason.
        self._away: dict[Replica, str] = {}
        #: Of whom the receiver knows that they are away.
        self._told: set[Replica] = set()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        url = self._environ.get("VLLM_OMNI_ALERT_WEBHOOK")
        if event.role != "server" or self._thread is not None or not url:
            return
        if not url.startswith(("http://", "https://")):
            # Its value is a secret: whoever knows it can write to the channel.
            logger.warning("VLLM_OMNI_ALERT_WEBHOOK is no http(s) address; nobody is alerted")
            return
        self._url = url
        self._after = _seconds(self._environ, "VLLM_OMNI_ALERT_AFTER_SECONDS", 10.0)
        self._interval = _seconds(self._environ, "VLLM_OMNI_ALERT_INTERVAL_SECONDS", 60.0)
        # A daemon: a server that ends takes back what it was about to say of its replicas.
        self._thread = threading.Thread(target=self._run, name="omni-replica-alert", daemon=True)
        self._thread.start()

    # Neither is slow: they only note it.

    @hookimpl
    def omni_replica_left(self, event: ReplicaLeft) -> None:
        if event.reason != "stopped":  # else it left with its engine, as it was told to
            self._away[Replica(event.model_name, event.stage, event.replica)] = event.reason or ""
            self._changed.set()

    @hookimpl
    def omni_replica_joined(self, event: ReplicaJoined) -> None:
        self._away.pop(Replica(event.model_name, event.stage, event.replica), None)
        self._changed.set()

    def close(self) -> None:
        """Say nothing more; a message that is under way is sent."""
        self._stopping.set()
        self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._stopping.wait(self._after):  # who is back by then never left
                return
            self._changed.clear()
            away = dict(self._away)
            left, returned = sorted(away.keys() - self._told), sorted(self._told - away.keys())
            if not left and not returned:
                continue
            try:
                self._post(left, returned, away)
            except Exception as error:  # whatever stands at the other end
                # Not the address, which is a secret.
                logger.warning("an alert was not delivered and is tried again: %r", error)
                self._changed.set()
            else:
                self._told = set(away)
            if self._stopping.wait(self._interval):
                return

    def _post(self, left: list[Replica], returned: list[Replica], away: dict[Replica, str]) -> None:
        lines = [f":red_circle: {_name(gone)} {away[gone] or 'left'}" for gone in left]
        lines += [f":large_green_circle: {_name(back)} is back" for back in returned]
        host = socket.gethostname()
        message = {
            "text": "\n".join([f"vLLM-Omni on {host}", *lines]),
            "host": host,
            "left": [{**gone._asdict(), "reason": away[gone] or None} for gone in left],
            "returned": [back._asdict() for back in returned],
        }
        body = json.dumps(message).encode()
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass  # any 2xx; the others raise


def _name(replica: Replica) -> str:
    return f"{replica.model}: replica {replica.replica} of stage {replica.stage}"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    value = environ.get(name)
    if not value:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if 0 <= seconds <= 86_400:
        return seconds
    logger.warning("%s=%r is no number of seconds up to a day; %g is used", name, value, default)
    return default


plugin = ReplicaAlert()
