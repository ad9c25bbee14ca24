"""The bench's figures beside the server's, and whether they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vllm_omni_metrics_plugin.compare.figures.figure import Figure
from vllm_omni_metrics_plugin.compare.result import Measured, Result
from vllm_omni_metrics_plugin.compare.totals import Totals

Verdict = Literal["agree", "apart", "not judged", "no bench value", "no server value"]

#: Sums of many floating-point numbers, in another order on each side.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Interval:
    """A number of the server, or for a quantile the bounds of its buckets."""

    low: float
    high: float

    @property
    def estimate(self) -> float:
        """The middle; the lower bound where there is no upper one."""
        return self.low if math.isinf(self.high) else (self.low + self.high) / 2

    def distance(self, value: float) -> float:
        """To the nearer bound; 0 in between."""
        return max(self.low - value, value - self.high, 0.0)


@dataclass(frozen=True)
class Tolerance:
    """How far apart both sides may be."""

    #: Of the server's value.
    relative: float
    #: Of times only, on top: what the client's way to the server and back may take.
    allowance_seconds: float

    def allows(self, figure: Figure, bench: float, server: Interval) -> bool:
        apart = server.distance(bench)
        if figure.judged == "exact":
            return apart <= _ROUNDING * server.estimate
        edge = server.low if bench < server.low else server.high
        allowance = self.allowance_seconds if figure.judged == "time" else 0.0
        return not apart or apart <= self.relative * edge + allowance


@dataclass(frozen=True)
class Row:
    """One figure from both sides, in our unit."""

    measured: Measured
    server: Interval | None
    verdict: Verdict
    #: Samples that the server knows it has missed, by reason.
    missing: dict[str, float]

    @property
    def difference(self) -> float | None:
        """The bench's relative to the server's; from the nearer bound of a quantile's buckets."""
        bench, server = self.measured.value, self.server
        if bench is None or server is None:
            return None
        edge = server.low if bench <= server.low else server.high
        apart = server.distance(bench)
        if apart <= _ROUNDING * server.low:
            return 0.0
        return math.copysign(apart / edge, bench - edge) if edge else None


def compare(result: Result, totals: Totals, tolerance: Tolerance) -> list[Row]:
    """Every figure that either side has seen."""
    rows = []
    for measured in result.figures():
        figure = measured.figure
        server = server_value(measured, totals)
        if not measured.value and (server is None or not (measured.says_something or server.high)):
            continue  # neither side has seen this modality
        if measured.value is None:
            verdict: Verdict = "no bench value"
        elif server is None:
            verdict = "no server value"
        elif figure.judged == "no":
            verdict = "not judged"
        else:
            agree = tolerance.allows(figure, measured.value, server)
            verdict = "agree" if agree else "apart"
        rows.append(Row(measured, server, verdict, totals.missing(figure.family)))
    return rows


def server_value(measured: Measured, totals: Totals) -> Interval | None:
    """The number of ours beside it; None where the server has no sample."""
    figure = measured.figure
    value: float | None
    if figure.is_counter:
        value = totals.counter(figure.family, figure.successes)
    else:
        histogram = totals.histogram(figure.family)
        if measured.percent is not None:
            bounds = histogram.quantile(measured.percent)
            return Interval(*bounds) if bounds else None
        if figure.aggregate == "count":
            value = histogram.count
        elif figure.at_most is not None:
            value = histogram.share(figure.at_most)
        elif figure.aggregate == "mean" and figure.over is None:
            value = histogram.mean
        else:
            value = histogram.sum if histogram.count else None
    if figure.over is not None and value is not None:
        over = _total(figure.over, totals)
        value = value / over if over else None
    return None if value is None else Interval(value, value)


def _total(stem: str, totals: Totals) -> float | None:
    return totals.counter(stem) if Figure.counts(stem) else totals.histogram(stem).sum
