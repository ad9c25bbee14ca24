"""A hook plugin: one JSON line per request, with all that happened to it, in rotated files."""

from __future__ import annotations

import functools
import logging
import os
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from typing import Any

import msgspec

from vllm_omni_metrics_plugin.hooks import Event, RequestFinished, hookimpl


@hookimpl(slow=True)
def omni_request_finished(event: RequestFinished) -> None:
    line: dict[str, Any] = {"time": datetime.now(timezone.utc), **msgspec.structs.asdict(event)}
    for parts in ("audio", "images", "videos", "streams", "verdicts"):
        line[parts] = [_part(part) for part in line[parts]]
    _file().emit(logging.makeLogRecord({"msg": msgspec.json.encode(line).decode()}))


def _part(event: Event) -> dict[str, Any]:
    """What it adds to the line."""
    fields = msgspec.structs.asdict(event)
    if hasattr(event, "rtf"):
        fields["rtf"] = event.rtf
    return {name: fields[name] for name in fields if name not in ("request_id", "model_name")}


class _Strict(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is the dispatcher's to count, not to be printed and forgotten."""
        raise


@functools.cache  # with the first line: a process without requests has nothing to write
def _file() -> RotatingFileHandler:
    path = os.environ.get("VLLM_OMNI_ACCESS_LOG") or "vllm-omni-access.jsonl"
    size = _number("VLLM_OMNI_ACCESS_LOG_BYTES", 64 * 1024 * 1024)
    files = _number("VLLM_OMNI_ACCESS_LOG_FILES", 5)
    return _Strict(path.replace("{pid}", str(os.getpid())), "a", size, files, "utf-8")


def _number(name: str, default: int) -> int:
    value = os.environ.get(name) or str(default)
    if value.isdecimal() and int(value) > 0:
        return int(value)
    text = "%s=%r is not a number above 0; %d is used"
    logging.getLogger("vllm.omni_access_log").warning(text, name, value, default)
    return default
