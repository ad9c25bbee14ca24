"""PromQL as a parser reads it, held to what families there are and which labels they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import promql_parser

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.kit.promql import ENGINE

#: Labels that Prometheus gives whatever it scrapes.
TARGET = frozenset({"job", "instance"})
_BUCKETS = re.compile(r"sum by \((\w+, )*le[,)]")
_COUNTED = {"rate", "increase"}


@dataclass(frozen=True)
class Known:
    """What there is: by sample name, whether it counts, and its labels."""

    counts: Mapping[str, bool]
    labels: Mapping[str, frozenset[str]]

    def without(self, name: str) -> Known:
        """The same if a family had another name."""
        gone = set(samples_of(name, self.labels))
        return Known(
            {n: c for n, c in self.counts.items() if n not in gone},
            {n: labels for n, labels in self.labels.items() if n not in gone},
        )

    def lacking(self, name: str, label: str) -> Known:
        """The same if a family did not have that label."""
        changed = {n: self.labels[n] - {label} for n in samples_of(name, self.labels)}
        return replace(self, labels={**self.labels, **changed})


def samples_of(name: str, among: Mapping[str, Any]) -> Iterator[str]:
    """The samples of a family: its own name, or those of a histogram."""
    yield from (
        n for n in (name, *(f"{name}_{e}" for e in ("bucket", "sum", "count"))) if n in among
    )


def known(recorded: Mapping[str, frozenset[str]]) -> Known:
    """The catalogue, the engine's gauges, ``up``, and what recording rules make."""
    counts: dict[str, bool] = {"up": False}
    labels: dict[str, frozenset[str]] = {"up": TARGET}
    for family in catalog.FAMILIES:
        ends = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        for end in ends:
            name = family.name + end
            counts[name] = family.kind != "gauge"
            labels[name] = TARGET | set(family.labels) | ({"le"} if end == "_bucket" else set())
    for name, of_gauge in ENGINE.items():
        counts[name], labels[name] = False, TARGET | set(of_gauge)
    for name, of_rule in recorded.items():
        counts[name], labels[name] = False, of_rule
    return Known(counts, labels)


@dataclass
class Reading:
    """What is wrong with an expression, and the labels of its result."""

    problems: list[str] = field(default_factory=list)
    labels: frozenset[str] = frozenset()
    names: set[str] = field(default_factory=set)


def read(expression: str, of: Known) -> Reading:
    """Raises ValueError for what is no PromQL."""
    reading = Reading()
    tree = promql_parser.parse(re.sub(r"\$__rate_interval", "5m", expression))
    reading.labels = _labels(tree, of, reading)
    return reading


def _labels(tree: Any, of: Known, found: Reading) -> frozenset[str]:
    match tree:
        case promql_parser.VectorSelector():
            return _selected(tree, of, found)
        case promql_parser.MatrixSelector():
            return _selected(tree.vector_selector, of, found)
        case promql_parser.ParenExpr():
            return _labels(tree.expr, of, found)
        case promql_parser.Call():
            return _called(tree, of, found)
        case promql_parser.AggregateExpr():
            inner = _labels(tree.expr, of, found)
            if tree.modifier is None:
                return frozenset()
            if tree.modifier.type != promql_parser.AggModifierType.By:
                found.problems.append("only by says which labels are left")
            return _there(tree.modifier.labels, inner, found)
        case promql_parser.BinaryExpr():
            return _both(tree, of, found)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return frozenset()
    raise ValueError(f"{type(tree).__name__} is not known here")


def _selected(selector: Any, of: Known, found: Reading) -> frozenset[str]:
    found.names.add(selector.name)
    labels = of.labels.get(selector.name)
    if labels is None:
        found.problems.append(f"there is no {selector.name}")
        return frozenset()
    _there([matcher.name for matcher in selector.matchers.matchers], labels, found)
    return labels


def _called(call: Any, of: Known, found: Reading) -> frozenset[str]:
    name = call.func.name
    if name in _COUNTED:
        counter = call.args[0].vector_selector.name
        if not of.counts.get(counter, True):
            found.problems.append(f"{name} of {counter}, which does not count")
    if name == "histogram_quantile" and not _BUCKETS.match(call.args[1].prettify()):
        found.problems.append("a quantile that is not over sum by (le, ...)")
    labels: frozenset[str] = frozenset()
    for argument in call.args:
        labels |= _labels(argument, of, found)
    if name == "label_join":
        new, _, *joined = (text.val for text in call.args[1:])
        return _there(joined, labels, found) | labels | {new}
    return labels - {"le"} if name == "histogram_quantile" else labels


def _both(tree: Any, of: Known, found: Reading) -> frozenset[str]:
    left, right = (_labels(side, of, found) for side in (tree.lhs, tree.rhs))
    if tree.modifier is not None and tree.modifier.matching is not None:
        for side in (left, right):
            _there(tree.modifier.matching.labels, side, found)
        if tree.modifier.group_labels:
            found.problems.append("labels of the other side are not known here")
    elif left and right and left != right:
        found.problems.append(f"{sorted(left)} beside {sorted(right)}, which never meet")
    return left or right


def _there(names: Iterable[str], labels: frozenset[str], found: Reading) -> frozenset[str]:
    missing = sorted(set(names) - labels)
    if missing:
        found.problems.append(f"there is no label {', '.join(missing)}")
    return frozenset(names)
