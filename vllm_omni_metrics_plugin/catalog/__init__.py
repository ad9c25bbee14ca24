"""Every metric family of the plugin, as data.

Exposition, documentation and tests derive from :data:`FAMILIES`; no metric name is written twice.
A family is published only with values that were measured. Where a value could not be had, the
family's row in ``metrics_missing_samples_total`` counts it.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.catalog.audio import AUDIO
from vllm_omni_metrics_plugin.catalog.backlog import BACKLOG
from vllm_omni_metrics_plugin.catalog.critical_path import CRITICAL_PATH
from vllm_omni_metrics_plugin.catalog.family import EDGE, MODEL, PLUGIN, PREFIX, STAGE, Family
from vllm_omni_metrics_plugin.catalog.listener import LISTENER
from vllm_omni_metrics_plugin.catalog.objectives import OBJECTIVES
from vllm_omni_metrics_plugin.catalog.own import OWN
from vllm_omni_metrics_plugin.catalog.queues import QUEUES
from vllm_omni_metrics_plugin.catalog.requests import REQUESTS
from vllm_omni_metrics_plugin.catalog.sessions import SESSIONS
from vllm_omni_metrics_plugin.catalog.tokens import TOKENS
from vllm_omni_metrics_plugin.catalog.transfers import TRANSFERS
from vllm_omni_metrics_plugin.catalog.visual import VISUAL

__all__ = [
    "BACKLOG",
    "BY_STEM",
    "EDGE",
    "FAMILIES",
    "MODEL",
    "PLUGIN",
    "PREFIX",
    "SESSIONS",
    "STAGE",
    "TRANSFERS",
    "Family",
]

FAMILIES: tuple[Family, ...] = (
    *(*QUEUES, *BACKLOG, *REQUESTS, *TOKENS, *CRITICAL_PATH),
    *(*AUDIO, *LISTENER, *VISUAL, *SESSIONS),
    *(*TRANSFERS, *OBJECTIVES, *OWN),
)

BY_STEM: dict[str, Family] = {family.stem: family for family in FAMILIES}
