"""What the engine's configuration says of a stage: what it makes, and which stages it feeds.

Where it says nothing, nothing is assumed: what is not expected is seen when it happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vllm_omni_metrics_plugin import internal_errors

_PLACE = "reading the pipeline's configuration"


def makes(about: Any) -> tuple[str, ...]:
    """What leaves for the client from a stage; ``about`` is the engine's ``StageRuntimeInfo``."""
    kind = getattr(about, "final_output_type", None)
    return (str(kind),) if kind and getattr(about, "final_output", False) else ()


def feeds(engine: Any, pool: Any) -> tuple[int, ...]:
    """The stages that get payloads from this one through a connector; never raises.

    What the orchestrator itself hands on goes through none.
    """
    with internal_errors.suppressed(_PLACE):
        config = getattr(getattr(pool, "stage_vllm_config", None), "model_config", None)
        targets = set(_targets(config, pool.stage_id))
        return tuple(
            sorted(
                other.stage_id
                for other in engine.stage_pools
                if other.stage_id in targets
                and pool.stage_id in _sources(engine, other, default=pool.stage_id)
            )
        )
    return ()


def _targets(config: Any, stage: int) -> Iterator[int]:
    """Where the runner of a stage (``_resolve_next_stage_id``) and its KV cache manager send to."""
    producer = getattr(config, "custom_process_next_stage_input_func", None)
    if isinstance(producer, str) and producer:
        yield _to_stage(getattr(config, "stage_connector_config", None), "to_stage", stage + 1)
    cache = getattr(config, "omni_kv_config", None)
    if isinstance(cache, Mapping) and cache.get("need_send_cache"):
        yield _to_stage(cache, "omni_to_stage", stage + 1)


def _to_stage(config: Any, name: str, default: int) -> int:
    stated = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    return default if stated in (None, "") else int(stated)


def _sources(engine: Any, pool: Any, default: int) -> list[int]:
    """The stages that a stage takes its input from; a pool may be there before its clients."""
    sources = getattr(getattr(pool, "stage_client", None), "engine_input_source", None)
    if sources is None:
        configs = getattr(engine, "stage_configs", None) or ()
        config = configs[pool.stage_id] if pool.stage_id < len(configs) else None
        sources = getattr(config, "engine_input_source", None)
    return [default] if sources is None else [int(source) for source in sources]
