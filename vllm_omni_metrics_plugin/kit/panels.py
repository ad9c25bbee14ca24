"""What a dashboard consists of, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.kit import promql

PAGES = "https://github.com/vllm-omni-metrics-plugin/vllm-omni-metrics-plugin/blob/main"
FAMILIES = f"{PAGES}/docs/reference/families.md"
ENGINE_FAMILIES = f"{PAGES}/docs/reference/engine-families.md"

#: How a panel draws: lines, areas that add up, one number, rows of labels and numbers, or a matrix
#: of the labels ``from`` and ``to``.
Form = Literal["lines", "stacked", "number", "table", "matrix"]
COLUMNS = 24
#: Sample names end so, families do not.
_ENDS = ("_bucket", "_sum", "_count")
#: Labels of which the values are numbers.
_NUMBERED = {
    **{label: f"{label} {{{{{label}}}}}" for label in ("stage", "replica")},
    "player": "buffer of {{player}} s",
}


@dataclass(frozen=True)
class Target:
    """One query of a panel; ``legend`` names its series by their labels."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    #: As Grafana calls it.
    unit: str
    #: The stem of the family that it is about, or a gauge of the engine's; its meaning is said.
    about: str
    targets: tuple[Target, ...]
    form: Form = "lines"
    #: What there is to know beside the family's meaning.
    note: str = ""
    #: Of the 24 columns of a dashboard.
    width: int = 8
    #: What a table calls the value; None where it says nothing that the labels do not.
    column: str | None = None

    @property
    def description(self) -> str:
        meaning = (
            catalog.BY_STEM[self.about].help
            if self.about in catalog.BY_STEM
            else f"{self.about}, by stage and replica."
        )
        return f"{meaning} {self.note}".strip()

    @property
    def link(self) -> str:
        """Where the family is defined."""
        if self.about in catalog.BY_STEM:
            return f"{FAMILIES}#{self.about}"
        return ENGINE_FAMILIES


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    #: Its file's name, and the end of its uid.
    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def beside(*panels: Panel) -> tuple[Panel, ...]:
    """All of them in one row of the grid, however wide they would be by themselves."""
    return tuple(replace(panel, width=COLUMNS // len(panels)) for panel in panels)


def legend(by: Sequence[str], first: str = "") -> str:
    """``first`` and the values of the labels, as Grafana fills them in; replicas as stage/replica.

    The number of a stage or the buffer of a player alone would not say of what it is.
    """
    texts = (_NUMBERED.get(label, f"{{{{{label}}}}}") for label in by)
    words = " ".join(filter(None, (first, *texts))) or "all"
    return words.replace(" replica {{replica}}", "/{{replica}}")


def quantiles(
    title: str,
    stem: str,
    unit: str,
    by: Sequence[str] = (),
    at: Sequence[float] = (0.5, 0.9, 0.99),
    note: str = "",
    **matchers: str,
) -> Panel:
    """How a histogram is distributed; where it is one quantile, the title names it."""
    names = [f"p{100 * q:g}" for q in at]
    targets = tuple(
        Target(promql.quantile(q, stem, by, **matchers), legend(by, name if at[1:] else ""))
        for q, name in zip(at, names, strict=True)
    )
    return Panel(title if at[1:] else f"{title}, {names[0]}", unit, stem, targets, note=note)


def rates(
    title: str,
    name: str,
    unit: str,
    by: Sequence[str] = (),
    form: Form = "stacked",
    note: str = "",
    **matchers: str,
) -> Panel:
    """How fast a counter grows, by these labels; where no unit says so, the title does."""
    about = next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), name)
    target = Target(promql.per_second(name, by, **matchers), legend(by))
    title = f"{title}, per second" if unit == "short" else title
    return Panel(title, unit, about, (target,), form, note)


def level(
    title: str,
    name: str,
    unit: str,
    by: Sequence[str] = (),
    how: str = "sum",
    form: Form = "lines",
    note: str = "",
    column: str | None = None,
) -> Panel:
    """What a gauge says, by these labels."""
    target = Target(promql.total(promql.metric(name), by, how), legend(by))
    return Panel(title, unit, name, (target,), form, note, column=column)
