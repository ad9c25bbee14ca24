"""A hook plugin: one JSON line per request, with all its timings, in rotated files."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from typing import Any

import msgspec

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Event,
    MediaPacket,
    RequestArrived,
    RequestFinished,
    StageFinished,
    StageSubmitted,
    hookimpl,
)

logger = logging.getLogger("vllm.omni_access_log")

#: Requests whose end got lost in a full queue must not stay for ever.
_MOST_OPEN_REQUESTS = 10_000


class AccessLog:
    """Gathers what happens to each request and writes it down when the request ends."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._open: OrderedDict[str, dict[str, Any]] = OrderedDict()
        #: Made with the first line: the engine's other processes have nothing to write.
        self._file: RotatingFileHandler | None = None

    # All of them are slow, so that one thread has them in the order in which they happened.

    @hookimpl(slow=True)
    def omni_request_arrived(self, event: RequestArrived) -> None:
        self._open[event.request_id] = {
            "id": event.external_request_id,
            "arrived_at": event.arrived_at,
            "stages": {},
            "audio": [],
            "packets": 0,
        }
        while len(self._open) > _MOST_OPEN_REQUESTS:
            self._open.popitem(last=False)

    @hookimpl(slow=True)
    def omni_stage_submitted(self, event: StageSubmitted) -> None:
        request = self._open.get(event.request_id)
        if request is not None:
            request["stages"][event.stage] = {
                "stage": event.stage,
                "replica": event.replica,
                "submitted_seconds": event.submitted_at - request["arrived_at"],
            }

    @hookimpl(slow=True)
    def omni_stage_finished(self, event: StageFinished) -> None:
        request = self._open.get(event.request_id)
        if request is not None:
            stage = request["stages"].setdefault(event.stage, {"stage": event.stage})
            stage |= {
                "replica": event.replica,
                "finished_seconds": event.finished_at - request["arrived_at"],
                "generation_seconds": event.generation_seconds,
                "tokens_in": event.tokens_in,
                "tokens_out": event.tokens_out,
                "finish_reason": event.finish_reason,
            }

    @hookimpl(slow=True)
    def omni_media_packet(self, event: MediaPacket) -> None:
        request = self._open.get(event.request_id)
        if request is not None:
            request["packets"] += 1

    @hookimpl(slow=True)
    def omni_audio_finished(self, event: AudioFinished) -> None:
        request = self._open.get(event.request_id)
        if request is not None:
            request["audio"].append(_without_names(event) | {"rtf": _rtf(event)})

    @hookimpl(slow=True)
    def omni_request_finished(self, event: RequestFinished) -> None:
        request = self._open.pop(event.request_id, {})
        line = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "request_id": request.get("id"),
            "internal_request_id": event.request_id,
            "model": event.model_name,
            "outcome": event.outcome,
            "end_to_end_seconds": event.end_to_end_seconds,
            "queue_seconds": event.queue_seconds,
            "packets": request.get("packets"),
            "stages": list(request.get("stages", {}).values()),
            "audio": request.get("audio", []),
        }
        self._write(msgspec.json.encode(line).decode())

    def _write(self, line: str) -> None:
        if self._file is None:
            self._file = _open_file(self._environ)
        self._file.emit(logging.makeLogRecord({"msg": "%s", "args": (line,)}))


class _Strict(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is the dispatcher's to count, not to be printed and forgotten."""
        raise


def _open_file(environ: Mapping[str, str]) -> RotatingFileHandler:
    path = environ.get("VLLM_OMNI_ACCESS_LOG") or "vllm-omni-access.jsonl"
    return _Strict(
        path.replace("{pid}", str(os.getpid())),
        maxBytes=_number(environ, "VLLM_OMNI_ACCESS_LOG_BYTES", 64 * 1024 * 1024),
        backupCount=_number(environ, "VLLM_OMNI_ACCESS_LOG_FILES", 5),
        encoding="utf-8",
    )


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name)
    if not value:
        return default
    if value.isdecimal() and int(value) > 0:
        return int(value)
    logger.warning("%s=%r is not a number above 0; %d is used", name, value, default)
    return default


def _without_names(event: Event) -> dict[str, Any]:
    fields = msgspec.structs.asdict(event)
    return {name: fields[name] for name in fields if name not in ("request_id", "model_name")}


def _rtf(event: AudioFinished) -> float | None:
    if event.generation_seconds is None or event.duration_seconds is None:
        return None
    return event.generation_seconds / event.duration_seconds


plugin = AccessLog()
