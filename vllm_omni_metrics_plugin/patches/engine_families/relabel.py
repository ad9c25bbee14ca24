"""Metric classes that turn vLLM's flat ``engine`` label into ``stage`` and ``replica``.

vLLM numbers the engines of one stat logger from 0. In a pipeline that hides which stage and which
replica a number belongs to. The classes that :func:`relabelled` makes take the place of
prometheus_client's in a stat logger: they accept every form in which vLLM gives labels, and replace
the engine in place, so that the order of the other labels and every value stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

ENGINE = "engine"
STAGE_AND_REPLICA = ("stage", "replica")
#: Gauges whose values do not add up over several API servers as vLLM has it: its value is a time.
AGGREGATES = {"vllm:lora_requests_info": "mostrecent"}


class UnknownEngineError(LookupError):
    """An engine number that no replica was registered under."""


class Engines:
    """Which replica each engine number of one stat logger stands for, and its metric families.

    It belongs to its logger: two loggers of one process number their engines alike.
    """

    def __init__(self) -> None:
        self._replicas: dict[int, tuple[str, str]] = {}
        #: The families with an engine label.
        self.families: list[ByReplica] = []
        #: Stage and replica of those that left; their series are kept but not exposed.
        self.withdrawn: set[tuple[str, str]] = set()

    def add(self, engine: int, stage: str, replica: str) -> None:
        """Raises ValueError if the number stands for another replica already."""
        known = self._replicas.setdefault(engine, (stage, replica))
        if known != (stage, replica):
            raise ValueError(f"engine {engine} is stage {known[0]} replica {known[1]} already")

    def __contains__(self, engine: int) -> bool:
        return engine in self._replicas

    def __len__(self) -> int:
        return len(self._replicas)

    def replica(self, engine: object) -> tuple[str, str]:
        """Stage and replica of an engine number, given as int or str; else UnknownEngineError."""
        try:
            return self._replicas[int(engine)]  # type: ignore[call-overload]
        except (KeyError, TypeError, ValueError):
            known = ", ".join(map(str, self._replicas)) or "none"
            raise UnknownEngineError(
                f"engine {engine!r} is not one of this logger's: {known}"
            ) from None

    def withdraw(self, stage: str, replica: str) -> None:
        """Stop exposing a replica's series; they keep their values, but gauges, which go to 0.

        Once more after late numbers, which several API servers would show for good.
        """
        self.withdrawn.add((stage, replica))
        for family in self.families:
            family.withdraw((stage, replica))

    def restore(self, stage: str, replica: str) -> None:
        """Expose a replica's series again, from where they were."""
        self.withdrawn.discard((stage, replica))
        for family in self.families:
            family.restore((stage, replica))


class ByReplica(MetricWrapperBase):
    """Stands before a prometheus_client metric class; see :func:`relabelled`."""

    #: Set by :func:`relabelled`.
    engines: ClassVar[Engines]
    #: Of a child, the family that it belongs to.
    family: ByReplica

    def __init__(
        self, name: str, documentation: str, labelnames: Any = (), *args: Any, **kwargs: Any
    ) -> None:
        names = list(labelnames or ())
        if name in AGGREGATES:
            kwargs["multiprocess_mode"] = AGGREGATES[name]
        #: Where the engine stood among the labels; None for a family without it.
        self._engine_at = names.index(ENGINE) if ENGINE in names else None
        if self._engine_at is not None:
            names[self._engine_at : self._engine_at + 1] = STAGE_AND_REPLICA
            self._withdrawn: dict[tuple[str, ...], Any] = {}
            #: Children by the labels as they were given: one look-up instead of a translation.
            self._found: dict[Any, Any] = {}
        super().__init__(name, documentation, names, *args, **kwargs)
        if self._engine_at is not None:
            self.engines.families.append(self)

    def labels(self, *values: Any, **named: Any) -> Any:
        if self._engine_at is None:
            return super().labels(*values, **named)
        given = values or tuple(named.items())
        child = self._found.get(given)
        if child is None:
            child = self._found[given] = self._find(values, named)
        return child

    def remove(self, *values: Any) -> None:
        self._found.clear()
        super().remove(*values)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        self._found.clear()
        super().remove_by_labels(labels)

    def clear(self) -> None:
        self._found.clear()
        super().clear()

    def sibling(self, child: ByReplica, stage: str, replica: str) -> Any:
        """The child with ``child``'s labels, but of another replica."""
        labels = dict(zip(self._labelnames, child._labelvalues, strict=True))
        return self.labels(**{**labels, "stage": stage, "replica": replica})

    def withdraw(self, replica: tuple[str, str]) -> None:
        with self._lock:
            for key in [key for key in self._metrics if self._replica_of(key) == replica]:
                self._withdrawn[tuple(key)] = self._metrics.pop(key)
            for key, child in self._withdrawn.items():
                if isinstance(child, Gauge) and self._replica_of(key) == replica:
                    child.set(0)  # in multiprocess mode its last value would be read for good

    def restore(self, replica: tuple[str, str]) -> None:
        with self._lock:
            for key in [key for key in self._withdrawn if self._replica_of(key) == replica]:
                self._metrics[key] = self._withdrawn.pop(key)

    def _find(self, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        at = self._engine_at
        assert at is not None
        if ENGINE in named:
            named["stage"], named["replica"] = self.engines.replica(named.pop(ENGINE))
        elif len(values) > at and len(values) != len(self._labelnames):
            values = (*values[:at], *self.engines.replica(values[at]), *values[at + 1 :])
        key = tuple(map(str, values or (named.get(name) for name in self._labelnames)))
        child = self._withdrawn.get(key)
        if child is None:
            child = super().labels(*values, **named)
            child.family = self
            # The last numbers of a replica that left must not bring its series back.
            if self._replica_of(key) in self.engines.withdrawn:
                self.withdraw(self._replica_of(key))
        return child

    def _replica_of(self, key: Sequence[str]) -> tuple[str, str]:
        assert self._engine_at is not None
        return key[self._engine_at], key[self._engine_at + 1]


class _Durations(Histogram):
    """A histogram without seconds that cannot be: vLLM takes a request that its scheduler never
    admitted to have queued until second 0, so less than no time.
    """

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        if amount >= 0 or not self._name.endswith("_seconds"):
            super().observe(amount, exemplar)


def relabelled(
    engines: Engines,
) -> tuple[type[Gauge], type[Counter], type[Histogram]]:
    """Gauge, Counter and Histogram whose ``engine`` label becomes ``stage`` and ``replica``."""
    gauge, counter, histogram = (
        type(f"{name}ByReplica", (ByReplica, base), {"engines": engines})
        for name, base in (("Gauge", Gauge), ("Counter", Counter), ("Histogram", _Durations))
    )
    return gauge, counter, histogram
