"""The families that the engine publishes itself, for who wants them out of ``/metrics``."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from vllm_omni_metrics_plugin import internal_errors

logger = logging.getLogger("vllm.omni_metrics")

#: What their names begin with since 0.24; those of 0.22 begin like ours.
PREFIX = "vllm_omni:"


class NativeFamilies:
    """Takes them out of a registry; the engine goes on counting in them, unseen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._seen = -1

    def leave_out(self) -> None:
        """Those that are there by now; more come when the engine imports what they belong to.

        Never raises. Costs nothing while no collector comes or goes.
        """
        with internal_errors.suppressed("leaving the engine's families out"):
            names = self._registry._collector_to_names
            if len(names) == self._seen:
                return
            for collector in list(names):
                if str(getattr(collector, "_name", "")).startswith(PREFIX):
                    self._registry.unregister(collector)
            self._seen = len(names)
