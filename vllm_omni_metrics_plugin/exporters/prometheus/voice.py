"""The samples of the voice detector of sessions of speech in and out at once."""

from __future__ import annotations

from typing import Any

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.exporters.prometheus.registry import Families
from vllm_omni_metrics_plugin.hooks import (
    SessionOpened,
    VoiceDetection,
    VoiceFailed,
    VoiceScored,
    hookimpl,
)

_ERRORS = "voice_detection_errors_total"


class VoiceChildren:
    """The label children of one model."""

    __slots__ = ("errors", "observe", "sessions")

    def __init__(self, families: Families, model_name: str) -> None:
        self.sessions = families["voice_detection_sessions"].labels(model_name)
        self.observe = families["voice_detection_inference_seconds"].labels(model_name).observe
        self.errors: dict[str, Any] = {
            reason: families[_ERRORS].labels(model_name, reason)
            for reason in catalog.BY_STEM[_ERRORS].known["reason"]
        }


class VoiceSamples:
    """Counts and times. All stands at 0 with a model's first session."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._models: dict[str, VoiceChildren] = {}

    @hookimpl
    def omni_session_opened(self, event: SessionOpened) -> None:
        self._model(event.model_name)

    @hookimpl
    def omni_voice_detection(self, event: VoiceDetection) -> None:
        self._model(event.model_name).sessions.inc(1 if event.active else -1)

    @hookimpl
    def omni_voice_scored(self, event: VoiceScored) -> None:
        observe = self._model(event.model_name).observe
        for seconds in event.inference_seconds:
            observe(seconds)

    @hookimpl
    def omni_voice_failed(self, event: VoiceFailed) -> None:
        self._model(event.model_name).errors[event.reason].inc()

    def _model(self, model_name: str) -> VoiceChildren:
        children = self._models.get(model_name)
        if children is None:
            children = self._models[model_name] = VoiceChildren(self._families, model_name)
        return children
