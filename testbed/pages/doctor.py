"""The tables on the page about ``vllm-omni-metrics doctor``, from the doctor's own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.doctor.laws import LAWS
from vllm_omni_metrics_plugin.doctor.measures import Count, Labelled, Measure
from vllm_omni_metrics_plugin.doctor.rules import REASONS, RULES, TALLIES, TRAPS
from vllm_omni_metrics_plugin.tables import markdown


def rules() -> str:
    rows = ((f"`{r.name}`", r.severity, _traffic(r.traffic, r.beyond), r.message) for r in RULES)
    header = ("rule", "severity", "traffic", "message")
    return markdown(header, map(_plain, rows))


def tallies() -> str:
    rows = ((f"`{t.sample}`", _values(t.where), t.severity, t.message) for t in TALLIES)
    header = ("counter", "label", "severity", "message")
    return markdown(header, map(_plain, rows))


def traps() -> str:
    rows = ((f"`{trap.name}`", trap.severity, trap.when, trap.message) for trap in TRAPS)
    return markdown(("check", "severity", "a family that a hook plugin made", "message"), rows)


def reasons() -> str:
    rows = ((f"`{reason}`", *about) for reason, about in REASONS.items())
    return markdown(("reason", "severity", "meaning"), rows)


def laws() -> str:
    rows = (
        (f"`law_{law.name}`", f"{law.left.words} {law.relation} {law.right.words}", _of(law.by))
        for law in LAWS
    )
    return markdown(("law", "what holds", "for each"), rows)


def _of(labels: Iterable[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels) or "server"


def _plain(row: Iterable[str]) -> list[str]:
    """What the doctor fills in with a number, and with a label's value."""
    numbers = (cell.replace("{traffic}", "N").replace("{value}", "N") for cell in row)
    return [cell.replace("{", "*").replace("}", "*") for cell in numbers]


def _traffic(measures: Iterable[Measure], beyond: Iterable[Measure]) -> str:
    least = " + ".join(_names(beyond))
    return " + ".join(_names(measures)) + (f" > {least}" if least else "")


def _names(measures: Iterable[Measure]) -> Iterator[str]:
    for measure in measures:
        if isinstance(measure, Labelled):
            yield f"`{measure.prefix}*` with the label `{measure.label}`"
        elif not isinstance(measure, Count):
            yield f"`{measure.prefix}*`"
        elif "hook" in measure.where:
            yield " + ".join(f"calls of `{hook}`" for hook in measure.where["hook"])
        else:
            values = _values(measure.where)
            name = measure.sample.removeprefix(catalog.PREFIX)
            yield f"`{name}`" + (f" ({values})" if values else "")


def _values(where: Mapping[str, Iterable[str]]) -> str:
    return ", ".join(value for values in where.values() for value in values)
