"""True metrics and event hooks for vLLM-Omni, as a vLLM general plugin.

The engine calls :func:`register` in every one of its processes. Hook authors start at
:mod:`vllm_omni_metrics_plugin.hooks`.
"""

from __future__ import annotations

import os

__version__ = "0.1.0"
__all__ = ["__version__", "register"]

_registered = False


def register() -> None:
    """Entry point of the groups ``vllm.general_plugins`` and ``vllm_omni.general_plugins``.

    Returns at once when ``VLLM_OMNI_METRICS`` is unset or 0. Calling it again does nothing. Never
    raises, since the engine does not catch what a plugin's function raises, and every one of its
    processes would die of it.
    """
    global _registered
    if _registered or os.environ.get("VLLM_OMNI_METRICS", "0") in ("0", ""):
        return
    _registered = True
    try:
        from vllm_omni_metrics_plugin.startup import start

        start(os.environ)
    except Exception:
        import logging

        logging.getLogger("vllm.omni_metrics").exception(
            "omni-metrics could not start; the engine runs without it"
        )
