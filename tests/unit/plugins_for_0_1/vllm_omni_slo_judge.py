"""A hook plugin: judges each request by objectives from a TOML file."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from vllm_omni_metrics_plugin.hooks import (
    AudioFinished,
    Configured,
    MediaPacket,
    RequestFinished,
    hookimpl,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

logger = logging.getLogger("vllm.omni_slo_judge")

VARIABLE = "VLLM_OMNI_SLO"
AUDIO_LIMITS = ("first_packet_seconds", "rtf")
REQUEST_LIMITS = ("queue_seconds", "end_to_end_seconds")
LIMITS = (*AUDIO_LIMITS, *REQUEST_LIMITS)

_MOST_OPEN_REQUESTS = 10_000


@dataclass(frozen=True)
class Objective:
    """What share (``target``) of the requests has to stay below all of the limits."""

    name: str
    target: float
    limits: Mapping[str, float]
    #: Empty: all of them.
    models: frozenset[str] = frozenset()

    @property
    def is_about_audio(self) -> bool:
        return any(limit in AUDIO_LIMITS for limit in self.limits)


def read(path: Path) -> list[Objective]:
    """The objectives of a file; what is wrong in it is logged and left out."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        logger.warning("%s=%s cannot be read (%s); nothing is judged", VARIABLE, path, error)
        return []
    objectives: dict[str, Objective] = {}
    tables = content.get("objective")
    for number, table in enumerate(tables if isinstance(tables, list) else (), 1):
        try:
            objective = _objective(table)
            if objective.name in objectives:
                raise ValueError("there is another objective of this name")
        except ValueError as error:
            name = table.get("name", number) if isinstance(table, dict) else number
            logger.warning("%s: objective %r is left out: %s", path, name, error)
        else:
            objectives[objective.name] = objective
    if not objectives:
        logger.warning("%s has no [[objective]] that can be used; nothing is judged", path)
    return list(objectives.values())


class SloJudge:
    """Counts good and bad requests per objective."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._environ = environ
        self._registry = registry
        self._objectives: list[Objective] = []
        #: What is known of the audio of requests that have not ended, by request id.
        self._audio: OrderedDict[str, dict[str, float | None]] = OrderedDict()
        self._lock = threading.Lock()

    @hookimpl
    def omni_configured(self, event: Configured) -> None:
        path = self._environ.get(VARIABLE)
        if event.role != "server" or self._objectives:
            return
        if not path:
            logger.warning("%s is not set to a TOML file; nothing is judged", VARIABLE)
            return
        self._publish(read(Path(path)))

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        if event.modality == "audio" and event.index == 0 and self._objectives:
            first = event.since_arrival_seconds if event.streamed else None
            self._remember(event.request_id, {"first_packet_seconds": first})

    @hookimpl
    def omni_audio_finished(self, event: AudioFinished) -> None:
        if self._objectives:
            rtf = None
            if event.generation_seconds is not None and event.duration_seconds is not None:
                rtf = event.generation_seconds / event.duration_seconds
            known = {"first_packet_seconds": event.first_packet_seconds, "rtf": rtf}
            self._remember(event.request_id, known)

    @hookimpl
    def omni_request_finished(self, event: RequestFinished) -> None:
        with self._lock:
            audio = self._audio.pop(event.request_id, None)
        if event.outcome == "rejected":
            return
        measured = {
            **(audio or {}),
            "queue_seconds": event.queue_seconds,
            "end_to_end_seconds": event.end_to_end_seconds,
        }
        for objective in self._objectives:
            if objective.models and event.model_name not in objective.models:
                continue
            if objective.is_about_audio and audio is None and event.outcome != "error":
                continue  # it did not speak, and was not asked to
            self._judge(objective, measured, event.outcome)

    def _judge(
        self, objective: Objective, measured: Mapping[str, float | None], outcome: str
    ) -> None:
        values = {name: measured.get(name) for name in objective.limits}
        broken = any(v is not None and v >= objective.limits[name] for name, v in values.items())
        if broken or outcome == "error":
            self._bad.labels(objective.name).inc()
        elif outcome == "abort":
            self._unjudged.labels(objective.name, "abort").inc()
        elif None in values.values():
            missing = next(name for name, value in values.items() if value is None)
            self._unjudged.labels(objective.name, missing).inc()
        else:
            self._good.labels(objective.name).inc()

    def _remember(self, request_id: str, known: Mapping[str, float | None]) -> None:
        with self._lock:
            self._audio.setdefault(request_id, {}).update(known)
            while len(self._audio) > _MOST_OPEN_REQUESTS:
                self._audio.popitem(last=False)

    def _publish(self, objectives: Iterable[Objective]) -> None:
        # No "vllm" in the names: the engine withdraws the families of that name now and then.
        by, registry = ["objective"], self._registry
        self._good = Counter("omni_slo_good", "Requests within all limits.", by, registry=registry)
        self._bad = Counter(
            "omni_slo_bad", "Requests beyond a limit or with an error.", by, registry=registry
        )
        self._unjudged = Counter(
            "omni_slo_unjudged",
            "Requests with a value that could not be measured.",
            [*by, "reason"],
            registry=registry,
        )
        target = Gauge(
            "omni_slo_target_ratio",
            "The share of requests that has to be good.",
            by,
            registry=registry,
            multiprocess_mode="livemax",
        )
        for objective in objectives:
            self._good.labels(objective.name)
            self._bad.labels(objective.name)
            target.labels(objective.name).set(objective.target)
            self._objectives.append(objective)


def _objective(table: Any) -> Objective:
    if not isinstance(table, dict):
        raise ValueError("it is not a table")
    known = {"name", "target", "models", *LIMITS}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"{unknown[0]} is none of {', '.join(sorted(known))}")
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("it needs a name")
    target = table.get("target")
    if not _is_number(target) or not 0 < target < 1:
        raise ValueError(f"target = {target!r} is not a share between 0 and 1, such as 0.95")
    limits = {limit: table[limit] for limit in LIMITS if limit in table}
    for limit, value in limits.items():
        if not _is_number(value) or value <= 0:
            raise ValueError(f"{limit} = {value!r} is not a number above 0")
    if not limits:
        raise ValueError(f"it needs a limit: {', '.join(LIMITS)}")
    models = table.get("models", [])
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise ValueError(f"models = {models!r} is not a list of names")
    return Objective(name, float(target), limits, frozenset(models))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


plugin = SloJudge()
