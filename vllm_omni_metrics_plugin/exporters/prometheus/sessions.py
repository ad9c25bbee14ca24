"""The samples of sessions of speech in and out at once, and of their turns."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.children import Labels, PerReplica
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    BargeIn,
    ReplicaJoined,
    SessionAttachment,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    TurnFinished,
    TurnPlayed,
    hookimpl,
)

_LATENCY = "turn_latency_seconds"
_HEARD = "turn_heard_latency_seconds"
_ENDPOINT = "turn_endpoint_delay_seconds"
_REACTION = "barge_in_reaction_seconds"
_SAMPLES = "turn_audio_samples_total"
_MISSING = (_LATENCY, _HEARD, _ENDPOINT, _REACTION, _SAMPLES)
#: What a word counts as that the catalogue does not have.
_OTHER = "other"


class SessionChildren:
    """The label children of one model."""

    __slots__ = (
        "_codes",
        "_outcomes",
        "_reasons",
        "detached",
        "duration",
        "endpoint",
        "heard",
        "latency",
        "model_name",
        "open",
        "reaction",
        "unheard",
    )

    def __init__(self, families: Families, model_name: str) -> None:
        self.model_name = model_name
        self.open = families["sessions"].labels(model_name, "open")
        self.detached = families["sessions"].labels(model_name, "detached")
        self.duration = families["session_duration_seconds"].labels(model_name)
        self.latency = families[_LATENCY].labels(model_name)
        self.heard = families[_HEARD].labels(model_name)
        self.endpoint = families[_ENDPOINT].labels(model_name)
        self.reaction = families[_REACTION].labels(model_name)
        self.unheard = families["turns_unheard_total"].labels(model_name)
        self._reasons = _known(families, "sessions_closed_total", model_name, "reason")
        self._codes = _known(families, "sessions_refused_total", model_name, "code")
        self._outcomes = _known(families, "turns_total", model_name, "outcome")

    def closed(self, reason: str) -> Any:
        return self._reasons.get(reason) or self._reasons[_OTHER]

    def refused(self, code: str) -> Any:
        return self._codes.get(code) or self._codes[_OTHER]

    def turn(self, outcome: str) -> Any:
        return self._outcomes[outcome]


class FateChildren:
    """The label children of one stage replica's audio in turns."""

    __slots__ = ("acknowledged", "discarded", "unknown")

    def __init__(self, families: Families, labels: Labels) -> None:
        family = families[_SAMPLES]
        self.acknowledged = family.labels(*labels, "acknowledged")
        self.discarded = family.labels(*labels, "discarded")
        self.unknown = family.labels(*labels, "unknown")


class SessionSamples:
    """Counts and times; keeps nothing of any session. All stands at 0 with a model's first one."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._missing = families.missing
        self._models: dict[str, SessionChildren] = {}
        self._replicas = PerReplica(FateChildren, families)
        #: Of replicas that make audio, whose model may have no session ever.
        self._speaking: list[ReplicaJoined] = []

    def expect(self, event: ReplicaJoined) -> None:
        """Note a replica that makes audio."""
        if "audio" not in event.makes:
            return
        self._speaking = [*(e for e in self._speaking if e != event), event]
        if event.model_name in self._models:
            self._replicas.expect(event)

    @hookimpl
    def omni_session_opened(self, event: SessionOpened) -> None:
        self._model(event.model_name).open.inc()

    @hookimpl
    def omni_session_refused(self, event: SessionRefused) -> None:
        self._model(event.model_name).refused(event.code).inc()

    @hookimpl
    def omni_session_attachment(self, event: SessionAttachment) -> None:
        model = self._model(event.model_name)
        came, left = (
            (model.open, model.detached) if event.attached else (model.detached, model.open)
        )
        came.inc()
        left.dec()

    @hookimpl
    def omni_session_closed(self, event: SessionClosed) -> None:
        model = self._model(event.model_name)
        (model.open if event.attached else model.detached).dec()
        model.closed(event.reason).inc()
        model.duration.observe(event.duration_seconds)

    @hookimpl
    def omni_turn_finished(self, event: TurnFinished) -> None:
        model = self._model(event.model_name)
        model.turn(event.outcome).inc()
        if event.endpoint_delay_seconds is not None:
            model.endpoint.observe(event.endpoint_delay_seconds)
        elif event.origin == "speech":
            self._missing("unknown_speech", _ENDPOINT)
        if event.samples == 0:
            return
        if event.deferred:
            self._missing("deferred", _LATENCY, _HEARD)
            return
        if event.latency_seconds is not None:
            model.latency.observe(event.latency_seconds)
        else:
            self._missing("unknown_speech", _LATENCY)
        if event.heard_latency_seconds is not None:
            model.heard.observe(event.heard_latency_seconds)
        elif event.origin != "request":
            self._missing("unknown_speech", _HEARD)

    @hookimpl
    def omni_turn_played(self, event: TurnPlayed) -> None:
        if event.unheard:
            self._model(event.model_name).unheard.inc()
        if event.replica is None:
            self._missing("unknown_replica", _SAMPLES)
            return
        fates = self._replicas[event.model_name, event.stage, event.replica]
        fates.acknowledged.inc(event.acknowledged)
        fates.discarded.inc(event.discarded)
        fates.unknown.inc(event.unknown)

    @hookimpl
    def omni_barge_in(self, event: BargeIn) -> None:
        if event.reaction_seconds is None:
            self._missing("unknown_cause", _REACTION)
        else:
            self._model(event.model_name).reaction.observe(event.reaction_seconds)

    def _model(self, model_name: str) -> SessionChildren:
        children = self._models.get(model_name)
        if children is None:
            children = self._models[model_name] = SessionChildren(self._families, model_name)
            self._families.expect_missing(*_MISSING)
            for replica in self._speaking:
                if replica.model_name == model_name:
                    self._replicas.expect(replica)
        return children


def _known(families: Families, stem: str, model_name: str, label: str) -> dict[str, Any]:
    values = catalog.BY_STEM[stem].known[label]
    return {value: families[stem].labels(model_name, value) for value in values}
