"""What a metric family is, and the label sets that families share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PREFIX = "vllm:omni_"

Kind = Literal["counter", "gauge", "histogram"]
#: How prometheus_client adds a gauge up over several API server processes.
Aggregate = Literal["livesum", "livemax"]

#: The ``event`` of families that the plugin feeds with its own counts.
PLUGIN = "(the plugin itself)"

MODEL = ("model_name",)
STAGE = ("model_name", "stage", "replica")
EDGE = ("model_name", "from_stage", "from_replica", "to_stage", "to_replica")


@dataclass(frozen=True)
class Family:
    """One metric family.

    ``event`` is the hook whose events feed it, or :data:`PLUGIN`; ``formula`` is how a sample is
    made from their fields.
    """

    stem: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    help: str
    event: str
    formula: str
    buckets: tuple[float, ...] = ()
    aggregate: Aggregate = "livesum"
    #: Values of a label that are known beforehand: their series stand at 0 from the moment the
    #: family can have samples, as nobody sees the increase of a series that is born at 1.
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    #: Every reason for which a sample of it may be counted in ``metrics_missing_samples_total``.
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name on /metrics, as Prometheus shows it."""
        return PREFIX + self.stem

    @property
    def is_own(self) -> bool:
        """Whether it is about the plugin, and there whatever the engine lets it see."""
        return self.event == PLUGIN or self.stem.startswith("metrics_")
