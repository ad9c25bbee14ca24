"""Who answers for ``/metrics`` in this process, and where."""

from __future__ import annotations

from vllm_omni_metrics_plugin import api_servers
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.settings import Settings


def answer_scrapes(settings: Settings, state: EngineState) -> None:
    """Take the engine's routes over, and open a port besides, as far as the operator wants it."""
    if settings.exposition == "engine" and settings.port is None:
        return
    from vllm_omni_metrics_plugin.exposition import Answers, Port

    answers = Answers()
    if settings.exposition == "plugin":
        state.answers_for = answers.application
    if settings.port is not None and api_servers.is_first():
        state.after_engine.append(Port(settings.port, answers).open)
