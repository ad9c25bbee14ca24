"""Reading the file that the engine's bench client saves, and naming its figures as ours are."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin.compare.figures import FIGURES
from vllm_omni_metrics_plugin.compare.figures.figure import DUPLEX, Figure

#: Where the plugin, loaded into the bench client, puts the figures under our names.
NAMED = "omni_metrics"

_PERCENT = r"\d{1,3}(?:\.\d+)?"


class NotABenchError(Exception):
    """The file is not what the bench client saves; the message says why."""


class Measured(NamedTuple):
    """A figure of the bench, in our unit."""

    figure: Figure
    #: Of a quantile, None of everything else.
    percent: float | None
    #: None where the bench has no sample.
    value: float | None

    @property
    def name(self) -> str:
        """One word, as of a histogram: ``audio_ttfp_seconds_mean``, ``audio_ttfp_seconds_p99``."""
        if self.percent is not None:
            return f"{self.figure.name}_p{self.percent:g}"
        aggregate = self.figure.aggregate
        return self.figure.name if aggregate == "total" else f"{self.figure.name}_{aggregate}"

    @property
    def says_something(self) -> bool:
        """Whether the bench has seen what the figure is of."""
        return bool(self.value) or (self.figure.zero_is_measured and self.value is not None)


class Result:
    """One run of ``vllm bench serve``."""

    def __init__(self, saved: Mapping[str, Any], runs: int = 1) -> None:
        self._saved = saved
        #: How many runs the file holds; this is the last one.
        self.runs = runs

    @property
    def backend(self) -> str:
        return str(self._saved.get("backend") or self._saved.get("endpoint_type") or "")

    def number(self, key: str) -> float | None:
        """None where it is missing or NaN, which the bench writes where it has no sample.

        Raises :class:`NotABenchError` for anything else that is no number.
        """
        return _number(key, self._saved.get(key))

    def percentiles(self, metric: str) -> dict[float, float]:
        """By percent; the bench saves those that it was asked for, in either of two forms."""
        found = _percentiles(rf"(?:median|p({_PERCENT}))_{re.escape(metric)}", self._saved)
        key = f"percentiles_{metric}"
        pairs = self._saved.get(key) or []
        try:
            for percent, number in pairs:
                if (value := _number(key, number)) is not None:
                    found[float(percent)] = value
        except (TypeError, ValueError):
            raise NotABenchError(f"{key} is {pairs!r}, not pairs of percent and value") from None
        return found

    def figures(self) -> list[Measured]:
        """What the bench has measured, in the order of FIGURES."""
        measured = []
        for figure in FIGURES:
            if figure.backends and self.backend not in figure.backends:
                continue
            if figure.aggregate == "quantile":
                percentiles = self.percentiles(figure.bench)
                values = {p: value * figure.to_unit for p, value in percentiles.items()}
                named = _percentiles(rf"{re.escape(figure.name)}_p({_PERCENT})", self._named)
                measured += [
                    Measured(figure, percent, _sample(figure, value))
                    for percent, value in sorted({**named, **values}.items())
                    if 0 <= percent <= 100
                ]
            else:
                single = Measured(figure, None, self._value(figure))
                if single.value is None:
                    value = _number(f"{NAMED}.{single.name}", self._named.get(single.name))
                    single = single._replace(value=value)
                measured.append(single)
        return measured

    @property
    def _named(self) -> Mapping[str, Any]:
        """What the plugin has put beside the bench's own figures; they come first."""
        named = self._saved.get(NAMED)
        return named if isinstance(named, Mapping) else {}

    def _value(self, figure: Figure) -> float | None:
        value = self.number(figure.bench)
        for key, inverse in ((figure.bench_times, False), (figure.bench_over, True)):
            factor = self.number(key) if key else 1.0
            if value is None or factor is None or (inverse and not factor):
                return None
            value = value / factor if inverse else value * factor
        if value is not None:
            value *= figure.to_unit
        return _sample(figure, value) if figure.aggregate == "mean" else value


def read(path: Path) -> Result:
    """The last run in the file; raises :class:`NotABenchError`."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NotABenchError(f"{path} cannot be read ({error})") from None
    try:
        runs = list(_objects(text))
    except (ValueError, RecursionError) as error:
        raise NotABenchError(f"{path} is not JSON ({error})") from None
    saved = runs[-1] if runs else None
    if not isinstance(saved, dict) or "completed" not in saved:
        raise NotABenchError(f"{path} is no result of `vllm bench serve`: it has no `completed`")
    result = Result(saved, len(runs))
    try:
        completed = result.number("completed")
        result.figures()
    except NotABenchError as why:
        raise NotABenchError(f"{path}: {why}") from None
    if result.backend in DUPLEX:
        raise NotABenchError(
            f"{path} is of backend {result.backend}: duplex sessions have no figures here"
        )
    if not completed:
        raise NotABenchError(
            f"{path}: no request was completed (completed is {saved['completed']!r})"
        )
    return result


def _objects(text: str) -> list[Any]:
    """All values of the text: ``--append-result`` writes one per line."""
    decoder = json.JSONDecoder()
    found = []
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def _sample(figure: Figure, value: float | None) -> float | None:
    # Nothing takes no time and no picture is empty: such a 0 is the bench's word for no sample.
    return value if figure.zero_is_measured else value or None


def _number(key: str, value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotABenchError(f"{key} is {value!r}, not a number")
    if not 0 <= value <= sys.float_info.max:
        raise NotABenchError(f"{key} is {value!r}, which cannot be measured")
    return float(value)


def _percentiles(pattern: str, figures: Mapping[str, Any]) -> dict[float, float]:
    """The numbers whose keys match, by the percent in the key, or else the median's."""
    found = {}
    for key, value in figures.items():
        match = re.fullmatch(pattern, key)
        if match and (number := _number(key, value)) is not None:
            found[float(match[1] or 50)] = number
    return found
