"""Expressions over the families, as text: names, labels and filters come from the catalogue.

A quantile is always ``histogram_quantile`` over ``sum by (le, ...)``, and what would be NaN without
traffic is left out (``>= 0``), so that a panel says that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllm_omni_metrics_plugin import catalog

#: As long as it has to be for the panel's resolution and Prometheus' scrape interval.
WINDOW = "$__rate_interval"
#: vLLM's own gauges that the plugin labels by stage and replica, and their labels.
ENGINE: dict[str, tuple[str, ...]] = {
    "vllm:num_requests_running": catalog.STAGE,
    "vllm:num_requests_waiting": catalog.STAGE,
    "vllm:kv_cache_usage_perc": catalog.STAGE,
}
#: The dashboards' variables, and the labels that each narrows down.
_VARIABLES = {
    "model_name": "$model_name",
    "stage": "$stage",
    "replica": "$replica",
    "to_stage": "$stage",
    "to_replica": "$replica",
}
_SUFFIXES = ("_bucket", "_sum", "_count")


def metric(name: str, **matchers: str) -> str:
    """A selector of one sample name, of what the dashboard's variables choose.

    A stem of the catalogue, or a gauge of :data:`ENGINE`; a histogram's stem ends in ``_bucket``,
    ``_sum`` or ``_count``. ``matchers`` are as PromQL has them, operator and value. Raises KeyError
    for a name, and ValueError for a label, that there is not.
    """
    full, labels = _known(name, matchers)
    chosen = {label: f'=~"{variable}"' for label, variable in _VARIABLES.items() if label in labels}
    return _selector(full, {"job": '=~"$job"', **chosen, **matchers})


def series(name: str, **matchers: str) -> str:
    """The same whatever the variables choose, as rules have it."""
    full, _ = _known(name, matchers)
    return _selector(full, matchers)


def rate(selector: str, window: str = WINDOW) -> str:
    return f"rate({selector}[{window}])"


def total(expression: str, by: Sequence[str] = (), how: str = "sum") -> str:
    grouping = f" by ({', '.join(by)})" if by else ""
    return f"{how}{grouping} ({expression})"


def per_second(name: str, by: Sequence[str] = (), **matchers: str) -> str:
    """How much a counter grows in a second, by these labels."""
    return total(rate(metric(name, **matchers)), by)


def quantile(q: float, stem: str, by: Sequence[str] = (), **matchers: str) -> str:
    buckets = total(rate(metric(f"{stem}_bucket", **matchers)), ("le", *by))
    return f"histogram_quantile({q}, {buckets}) >= 0"


def ratio(above: str, below: str) -> str:
    return f"{above} / {below} >= 0"


def mean(stem: str, by: Sequence[str] = (), **matchers: str) -> str:
    """A histogram's sum over its count."""
    return ratio(
        per_second(f"{stem}_sum", by, **matchers), per_second(f"{stem}_count", by, **matchers)
    )


def share_of(name: str, by: Sequence[str] = (), **matchers: str) -> str:
    """Each of a counter's series by these labels as a share of all of them."""
    return ratio(
        per_second(name, by, **matchers),
        f"on () group_left () {per_second(name, (), **matchers)}",
    )


def _selector(full: str, matchers: Mapping[str, str]) -> str:
    inside = ",".join(f"{label}{matcher}" for label, matcher in matchers.items())
    return f"{full}{{{inside}}}" if inside else full


def _known(name: str, matchers: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The full name and its labels, if it has all those of ``matchers``."""
    full, labels = _labels(name)
    unknown = set(matchers) - set(labels) - {"le"}
    if unknown:
        raise ValueError(f"{full} has no label {', '.join(sorted(unknown))}")
    return full, labels


def _labels(name: str) -> tuple[str, tuple[str, ...]]:
    if name in ENGINE:
        return name, ENGINE[name]
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    family = catalog.BY_STEM[name.removesuffix(suffix)]
    if (family.kind == "histogram") != bool(suffix):
        raise KeyError(name)
    return catalog.PREFIX + name, family.labels
