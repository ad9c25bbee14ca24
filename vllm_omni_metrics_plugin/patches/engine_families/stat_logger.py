"""vLLM's own ``vllm:*`` families, split by stage and replica.

Imported when an engine is built, since it derives from vLLM's class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import PrometheusStatLogger

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.hooks import EngineStats
from vllm_omni_metrics_plugin.patches.engine_families.input_cache import InputCaches
from vllm_omni_metrics_plugin.patches.engine_families.relabel import ByReplica, Engines, relabelled

#: Class slots of the logger that hold helper collectors with metric classes of their own.
_HELPER_SLOTS = (
    "_spec_decoding_cls",
    "_kv_connector_cls",
    "_perf_metrics_cls",
    "_ec_connector_cls",
)
#: vLLM's names of its sleep levels; 0 is none.
_SLEEP_STATES = {"awake": 0, "weights_offloaded": 1, "discard_all": 2}
_METRIC_SLOTS = ("_gauge_cls", "_counter_cls", "_histogram_cls")


class StageStatLogger(PrometheusStatLogger):
    """Takes the place of the engine's own wrapped logger."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        stage_replica_map: Mapping[int, tuple[str, str]],
        hooks: Any,
        input_caches: InputCaches | None = None,
    ) -> None:
        """``stage_replica_map`` says which stage and replica each flat engine index is.

        ``hooks`` are those of a :class:`~vllm_omni_metrics_plugin.hooks.HookRegistry`.
        """
        self._engine_stats = hooks.omni_engine_stats
        self.input_caches = input_caches or InputCaches({})
        self.vllm_config = vllm_config
        self.engine_indexes: list[int] = []
        self._engines = Engines()
        self._iterations_come_apart = False
        self._cache_config_info: Any = None
        self._labelvalues: dict[int, list[object]] = {}
        metrics = dict(zip(_METRIC_SLOTS, relabelled(self._engines), strict=True))
        for slot, metric in metrics.items():
            setattr(self, slot, metric)
        for slot in _HELPER_SLOTS:
            helper = getattr(type(self), slot, None)
            if helper is not None:
                slots: dict[str, Any] = {n: c for n, c in metrics.items() if hasattr(helper, n)}
                slots["observe"] = _contained(helper.observe)
                setattr(self, slot, type(helper.__name__, (helper,), slots))
        for engine, (stage, replica) in stage_replica_map.items():
            self._engines.add(engine, stage, replica)
        # Without a member there is nothing to take the tables from; the first to join makes them.
        if stage_replica_map:
            super().__init__(vllm_config, list(stage_replica_map))

    @property
    def per_engine_labelvalues(self) -> dict[int, list[object]]:
        return self._labelvalues

    @per_engine_labelvalues.setter
    def per_engine_labelvalues(self, upstream: dict[int, list[object]]) -> None:
        # Upstream assigns {engine: [model, engine]} and fans the values out to all families.
        self._labelvalues = {
            engine: [values[0], *self._engines.replica(engine)]
            for engine, values in upstream.items()
        }

    def register_replica(self, engine_idx: int, stage: str, replica: str) -> None:
        """A replica joined, or returned; the others are not touched.

        Never raises: the engine calls it too, in the loop that every stage ends with.
        """
        with internal_errors.suppressed("a replica that joins the stat logger"):
            self._register(engine_idx, stage, replica)

    def _register(self, engine_idx: int, stage: str, replica: str) -> None:
        if engine_idx in self._engines:
            self._engines.add(engine_idx, stage, replica)
            self.restore_replica(stage, replica)
            self.show_sleep_state(engine_idx, 0)
            return
        self._engines.add(engine_idx, stage, replica)
        if not self.engine_indexes:
            super().__init__(self.vllm_config, [engine_idx])
            return
        _extend(vars(self), engine_idx, stage, replica)
        model_name = self.vllm_config.model_config.served_model_name
        self._labelvalues[engine_idx] = [model_name, stage, replica]
        self.engine_indexes.append(engine_idx)
        self.show_sleep_state(engine_idx, 0)

    def show_sleep_state(self, engine_idx: int, level: int) -> None:
        """``vllm:engine_sleep_state`` of one engine, as ``record_sleep_state`` has it of all."""
        for name, of_level in _SLEEP_STATES.items():
            self.gauge_engine_sleep_state[name][engine_idx].set(level == of_level)

    def show_cache_config(self, engine_idx: int, cache_config: Any) -> None:
        """``vllm:cache_config_info`` of one engine; block sizes and counts differ by stage.

        vLLM makes the family in ``log_engine_initialized``, of one configuration for all engines,
        and vLLM-Omni never calls that.
        """
        labels = {**cache_config.metrics_info(), "engine": str(engine_idx)}
        if self._cache_config_info is None:
            self._cache_config_info = self._gauge_cls(
                name="vllm:cache_config_info",
                documentation="Information of the LLMEngine CacheConfig",
                multiprocess_mode="mostrecent",
                labelnames=list(labels),
            )
        self._cache_config_info.labels(**labels).set(1)

    def withdraw_replica(self, stage: str, replica: str) -> None:
        """A replica left or died: its series go, and are kept for its return."""
        self._engines.withdraw(stage, replica)

    def restore_replica(self, stage: str, replica: str) -> None:
        self._engines.restore(stage, replica)

    def _withdraw_anew(self, engine_idx: int) -> None:
        replica = self._engines.replica(engine_idx)
        if replica in self._engines.withdrawn:
            self._engines.withdraw(*replica)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Never raises: the orchestrator ends every stage over an exception here."""
        if self._iterations_come_apart:
            iteration_stats = None  # the engine's are empty ones
        self._record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx, *args, **kwargs)

    def record_iteration(self, iteration_stats: Any, engine_idx: int) -> None:
        """The iteration statistics of an engine that does not hand them to :meth:`record`."""
        self._iterations_come_apart = True
        self._record(None, iteration_stats, None, engine_idx)

    def _record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any,
        engine_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        with internal_errors.suppressed("recording engine statistics"):
            stage, replica = self._engines.replica(engine_idx)
            if mm_cache_stats is None:
                mm_cache_stats = self.input_caches.new_lookups(int(stage))
            super().record(
                scheduler_stats, iteration_stats, mm_cache_stats, engine_idx, *args, **kwargs
            )
            if self._engines.withdrawn:
                self._withdraw_anew(engine_idx)
            if self._engine_stats.listeners:
                self._engine_stats(
                    EngineStats(
                        stage=int(stage),
                        replica=int(replica),
                        scheduler_stats=scheduler_stats,
                        iteration_stats=iteration_stats,
                    )
                )


def _contained(observe: Callable[..., None]) -> Callable[..., None]:
    """A helper that fails on its own numbers must not take the tokens and latencies with it."""
    place = f"recording for {observe.__qualname__.partition('.')[0]}"

    @functools.wraps(observe)
    def contained(self: Any, *args: Any, **kwargs: Any) -> None:
        with internal_errors.suppressed(place):
            observe(self, *args, **kwargs)

    return contained


def _extend(value: Any, engine: int, stage: str, replica: str) -> None:
    """Give every table by engine number in ``value`` an entry for one more engine.

    Tables hold a child per engine, or a list of children, and may be nested by a further label.
    """
    if isinstance(value, dict):
        template = next(iter(value.values()), None)
        by_engine_and_label = [key for key in value if isinstance(key, tuple)]
        if by_engine_and_label:
            first = by_engine_and_label[0][0]
            for key in by_engine_and_label:
                if key[0] == first and _is_child(value[key]):
                    newcomer = (engine, *key[1:])
                    value[newcomer] = value[key].family.sibling(value[key], stage, replica)
        elif isinstance(template, ByReplica) and _is_child(template):
            value[engine] = template.family.sibling(template, stage, replica)
        elif isinstance(template, list) and template and all(map(_is_child, template)):
            value[engine] = [child.family.sibling(child, stage, replica) for child in template]
        else:
            for inner in value.values():
                _extend(inner, engine, stage, replica)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _extend(inner, engine, stage, replica)
    elif _is_collector(value):
        _extend(vars(value), engine, stage, replica)


def _is_child(value: Any) -> bool:
    return (
        isinstance(value, ByReplica) and "stage" in value._labelnames and bool(value._labelvalues)
    )


def _is_collector(value: Any) -> bool:
    """Whether this is one of vLLM's helpers that keep metrics of their own."""
    return any(
        cls.__module__.startswith("vllm.") and cls.__name__.endswith(("Prom", "PromMetrics"))
        for cls in type(value).__mro__
    )
