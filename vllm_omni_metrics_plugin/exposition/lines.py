"""The sample lines of prometheus_client's counters, gauges and histograms, kept from page to page.

What stands before a child's values never changes, so it is built once; where the values have not
changed either, neither have the lines. Text and OpenMetrics have the same sample lines but for
exemplars, and for the place of ``_created``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, metrics, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

#: A value as Prometheus writes it.
go: Callable[[float], str] = floatToGoString

#: Names that need no quotes.
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
#: What a class must have left as it is, for its samples to be known without asking it.
_UNCHANGED = ("collect", "_samples", "_multi_samples", "_get_metric")
#: Counts that are written again and again.
_COUNTS = {float(count): go(count) for count in range(2_000)}


class ChildLines:
    """The lines of one child: ``body``, and ``created`` for the time at which it began."""

    __slots__ = ("_before_created", "_created_at", "_seen", "body", "child", "created")

    def __init__(self, child: Any, name: str, labels: dict[str, str]) -> None:
        self.child = child
        self.body = ""
        self.created = ""
        self._seen: Any = None
        self._created_at: Any = None
        self._before_created = before(f"{name}_created", labels)

    def refresh(self) -> None:
        """Bring ``body`` up to date."""
        raise NotImplementedError

    def refresh_created(self) -> None:
        """Bring ``created`` up to date."""
        at = self.child._created
        if at is not self._created_at:
            self._created_at = at
            self.created = f"{self._before_created}{go(at)}\n"

    def with_exemplars(self) -> str:
        """``body`` as OpenMetrics has it."""
        return self.body


class _CounterLines(ChildLines):
    __slots__ = ("_before",)
    suffix = "_total"

    def __init__(self, child: Any, name: str, labels: dict[str, str]) -> None:
        super().__init__(child, name, labels)
        self._before = before(f"{name}{self.suffix}", labels)

    def refresh(self) -> None:
        # The same object is the same text; of equal numbers, 0.0 and -0.0 are not.
        value = self.child._value._value
        if value is not self._seen:
            self._seen = value
            self.body = f"{self._before}{go(value)}\n"

    def with_exemplars(self) -> str:
        return _with_exemplars(self.body, (self.child._value._exemplar,))


class _GaugeLines(_CounterLines):
    __slots__ = ()
    suffix = ""

    def refresh_created(self) -> None:
        """It has none."""

    def with_exemplars(self) -> str:
        return self.body


class _HistogramLines(ChildLines):
    __slots__ = ("_has_sum", "_template")

    def __init__(self, child: Any, name: str, labels: dict[str, str]) -> None:
        super().__init__(child, name, labels)
        bounds = child._upper_bounds
        befores = [before(f"{name}_bucket", {**labels, "le": go(bound)}) for bound in bounds]
        befores.append(before(f"{name}_count", labels))
        self._has_sum = bounds[0] >= 0
        if self._has_sum:
            befores.append(before(f"{name}_sum", labels))
        self._template = "".join(f"{text.replace('%', '%%')}%s\n" for text in befores)

    def refresh(self) -> None:
        child = self.child
        seen = [bucket._value for bucket in child._buckets]
        seen.append(child._sum._value)
        if seen == self._seen:
            return
        self._seen = seen
        total = 0.0
        texts = []
        for value in seen[:-1]:
            total += value
            texts.append(_COUNTS.get(total) or go(total))
        texts.append(texts[-1])
        if self._has_sum:
            texts.append(go(seen[-1]))
        self.body = self._template % tuple(texts)

    def with_exemplars(self) -> str:
        return _with_exemplars(self.body, [bucket._exemplar for bucket in self.child._buckets])


class FamilyLines:
    """The lines of one family, by child. Children that went are forgotten."""

    def __init__(self, family: Any, lines: type[ChildLines]) -> None:
        self._family = family
        self._lines = lines
        self._by_child: dict[Any, ChildLines] = {}
        name, self._has_created = family._name, lines is not _GaugeLines
        help_text = family._documentation.replace("\\", r"\\").replace("\n", r"\n")
        total = f"{name}_total" if lines is _CounterLines else name
        self._text_head = f"# HELP {total} {help_text}\n# TYPE {total} {family._type}\n"
        self._created_head = f"# HELP {name}_created {help_text}\n# TYPE {name}_created gauge\n"
        quoted = help_text.replace('"', r"\"")
        self._openmetrics_head = f"# HELP {name} {quoted}\n# TYPE {name} {family._type}\n"
        if family._unit:
            self._openmetrics_head += f"# UNIT {name} {family._unit}\n"

    def text(self) -> Iterable[str] | None:
        """Parts of a page; None if a child's value is computed by a function of its owner."""
        children = self._refreshed()
        if children is None:
            return None
        parts = [self._text_head, *[child.body for child in children]]
        if children and self._refresh_created(children):
            parts.append(self._created_head)
            parts += [child.created for child in children]
        return parts

    def openmetrics(self) -> Iterable[str] | None:
        """The same in the other format."""
        children = self._refreshed()
        if children is None:
            return None
        has_created = self._refresh_created(children)
        parts = [self._openmetrics_head]
        for child in children:
            parts.append(child.with_exemplars())
            if has_created:
                parts.append(child.created)
        return parts

    def _refreshed(self) -> list[ChildLines] | None:
        by_child, children = self._by_child, self._children()
        found = []
        for child in children:
            if "_child_samples" in child.__dict__:
                return None
            lines = by_child.get(child)
            if lines is None:
                labels = dict(zip(child._labelnames, child._labelvalues, strict=True))
                lines = by_child[child] = self._lines(child, self._family._name, labels)
            lines.refresh()
            found.append(lines)
        if len(by_child) > len(found):
            self._by_child = {lines.child: lines for lines in found}
        return found

    def _children(self) -> Sequence[Any]:
        family = self._family
        if not family._labelnames:
            return (family,)
        with family._lock:
            return list(family._metrics.values())

    def _refresh_created(self, children: Iterable[ChildLines]) -> bool:
        if not (self._has_created and metrics._use_created):
            return False
        for child in children:
            child.refresh_created()
        return True


def lines_of(collector: Any) -> FamilyLines | None:
    """Lines to keep for a collector; None for one that is to be asked."""
    if not isinstance(collector, MetricWrapperBase):
        return None
    cls = type(collector)
    if any(getattr(cls, name) is not getattr(MetricWrapperBase, name) for name in _UNCHANGED):
        return None
    if values.ValueClass is not values.MutexValue or not vars(collector).keys().isdisjoint(
        _UNCHANGED
    ):
        return None
    if not NAME.fullmatch(collector._name):
        return None
    if not all(map(LABEL.fullmatch, collector._labelnames)):
        return None
    for base, lines in (
        (Counter, _CounterLines),
        (Gauge, _GaugeLines),
        (Histogram, _HistogramLines),
    ):
        if cls._child_samples is base._child_samples:
            return FamilyLines(collector, lines)
    return None


def before(name: str, labels: dict[str, str]) -> str:
    """What stands before a value: the sample's name, its labels in order, a space."""
    if not labels:
        return f"{name} "
    pairs = ",".join(f'{label}="{escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}} "


def escaped(value: str) -> str:
    """A label's value, as it stands between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _with_exemplars(body: str, exemplars: Sequence[Any]) -> str:
    """An exemplar, if there is one, behind each of the first lines."""
    if not any(exemplars):
        return body
    lines = body.split("\n")
    for index, exemplar in enumerate(exemplars):
        if exemplar is not None:
            labels = ",".join(f'{k}="{escaped(v)}"' for k, v in sorted(exemplar.labels.items()))
            lines[index] += f" # {{{labels}}} {go(exemplar.value)}"
            if exemplar.timestamp is not None:
                lines[index] += f" {exemplar.timestamp}"
    return "\n".join(lines)
