"""Judging requests: by the limits of an operator's objectives, each request once, at its end."""

from __future__ import annotations

from vllm_omni_metrics_plugin.objectives.file import VARIABLE, read, with_bounds
from vllm_omni_metrics_plugin.objectives.listener import ObjectivesListener
from vllm_omni_metrics_plugin.objectives.objective import Objective

__all__ = ["VARIABLE", "Objective", "ObjectivesListener", "read", "with_bounds"]
