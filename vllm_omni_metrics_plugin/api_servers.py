"""Several API servers: what Prometheus' multiprocess mode means here, and what it cannot do.

With ``--api-server-count`` above 1 each server process writes its numbers into files of its own in
``PROMETHEUS_MULTIPROC_DIR``, and whichever answers a scrape adds all files up, those of ended
processes included. So counters and histograms stay exact; how gauges add up is said by each family
(``Family.aggregate``). The engine's stages are shared by the servers and have no part in it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.catalog.family import Aggregate

#: prometheus_client reads both, at its import.
_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
#: What vLLM calls the processes, up to their number.
_SERVER = "ApiServer_"


@dataclass(frozen=True)
class Limit:
    """What this mode cannot do.

    ``families`` are names as on /metrics; ``*`` stands for any characters.
    """

    families: tuple[str, ...]
    reason: str


def is_on(environ: Mapping[str, str]) -> bool:
    """Whether a process with these variables shows its numbers through files."""
    return any(variable in environ for variable in _VARIABLES)


def variable(environ: Mapping[str, str]) -> str:
    """The name of the variable that is set, or else of the one to set."""
    return next(filter(environ.__contains__, _VARIABLES), _VARIABLES[0])


def folder(environ: Mapping[str, str]) -> Path:
    """Where the files are; raises KeyError outside of this mode."""
    return Path(environ[variable(environ)])


def is_one_of_several() -> bool:
    """Whether this process is an API server beside others."""
    return multiprocessing.current_process().name.startswith(_SERVER)


def is_first() -> bool:
    """Whether this process speaks for all API servers, where it is enough that one does."""
    return not is_one_of_several() or multiprocessing.current_process().name == f"{_SERVER}0"


def withdraw_gauges() -> None:
    """Take this process out of the gauges that count living processes; for its end.

    vLLM does so only for the process that made the folder, which serves nothing.
    """
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def adding_up(family: catalog.Family) -> str:
    """How a scrape makes one value of those of several servers."""
    if family in catalog.BACKLOG:
        return "absent"
    return _AGGREGATES[family.aggregate] if family.kind == "gauge" else "their sum, for good"


def limits() -> tuple[Limit, ...]:
    """Everything that this mode cannot do, for logs, documentation and ``doctor``."""
    return _LIMITS


def _names(*stems: str) -> tuple[str, ...]:
    return tuple(catalog.BY_STEM[stem].name for stem in stems)


_AGGREGATES: dict[Aggregate, str] = {
    "livesum": "the sum of those that run",
    "livemax": "the largest of those that run",
}

_LIMITS = (
    Limit(
        _names("stage_info", "metrics_patch_info"),
        "a series cannot be taken back: where a replica left, or a patch's status changed, the old "
        "one says 0",
    ),
    Limit(
        ("vllm:*",),
        "those of the engine's series that belong to a replica which left stay: gauges at 0, "
        "counters and histograms as they were",
    ),
    Limit(
        _names("num_requests_running", "num_requests_waiting", "metrics_hook_listening"),
        "a server process that is killed rather than ended stays in the sum until the whole server "
        "ends, which vLLM-Omni then does at once",
    ),
    Limit(
        _names(
            *("num_requests_running", "num_requests_waiting", "request_queue_time_seconds"),
            *("stage_requests_running", "stage_requests_waiting", "stage_busy_seconds_total"),
            *("stage_queue_time_seconds", "stage_input_wait_seconds"),
            "stage_execute_time_seconds",
        ),
        "one of the servers hears of all starts, and knows its own requests only: so a request "
        "counts as executing from its submit on, and the times of the others' requests are missing "
        "samples; busy seconds of servers that share a replica add up",
    ),
    Limit(
        _names("critical_path_seconds_total"),
        "the others' requests are `unknown` from the last submit that they know",
    ),
    Limit(
        tuple(family.name for family in catalog.BACKLOG),
        "absent: no server knows what the stages have to do for the others, nor for how long",
    ),
    Limit(
        tuple(family.name for family in catalog.TRANSFERS),
        "one of the servers hears of all transfers, and another takes its place when it ends; what "
        "is under way in that moment is lost or counted as missing. It knows the replicas of its "
        "own requests only, so other servers' hops from or to diffusion stages are missing samples",
    ),
    Limit(
        _names(
            "metrics_events_total",
            "metrics_hook_calls_total",
            "metrics_hook_errors_total",
            "metrics_hook_dropped_events_total",
            "metrics_held_series_total",
            "metrics_spans_dropped_total",
        ),
        "up to a second late, since a scrape is answered from files and asks nobody",
    ),
    Limit(
        ("process_*", "python_*"),
        "not shown, as all that is computed for a scrape; so are collectors and `set_function` of "
        "hook plugins",
    ),
    Limit(("*_created",), "not shown; exemplars neither"),
    Limit(
        ("vllm_omni:*",),
        "the engine's own gauges are shown for each process, with a `pid` label; "
        "`VLLM_OMNI_METRICS_NATIVE=0` does not leave them out, as their numbers come from files",
    ),
    Limit(
        ("*",),
        "a folder that you name in PROMETHEUS_MULTIPROC_DIR yourself keeps the counts of earlier "
        "runs unless you empty it",
    ),
)
