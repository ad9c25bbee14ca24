"""The events of a process of the engine: the plugin came up in it, and patched it."""

from __future__ import annotations

from typing import Literal

from vllm_omni_metrics_plugin.hooks.events.base import Event
from vllm_omni_metrics_plugin.settings import Settings

Role = Literal["server", "stage_engine", "worker", "model_inspection", "bench"]
PatchStatus = Literal["applied", "deferred", "skipped", "failed"]


class Configured(Event, frozen=True, kw_only=True):
    """The plugin is ready in this process."""

    settings: Settings
    #: What this process is to the engine; ``server`` is also any script's own process. A
    #: ``bench`` loads no hooks.
    role: Role
    #: Versions by distribution: ``vllm-omni-metrics-plugin``, ``vllm``, ``vllm-omni``.
    versions: dict[str, str]


class PatchReported(Event, frozen=True, kw_only=True):
    """What became of one patch. One reported as ``deferred`` is reported again later."""

    name: str
    #: ``module:attribute`` in the engine.
    target: str
    #: ``deferred``: its module is not imported yet. ``skipped``: this engine has no such place.
    status: PatchStatus
    #: Empty when applied, else why not.
    reason: str = ""
