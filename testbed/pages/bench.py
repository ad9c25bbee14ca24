"""The figures of the bench and of the server, from the data that the command compares by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vllm_omni_metrics_plugin.compare.figures import AUDIO, BENCH_ONLY, REQUESTS
from vllm_omni_metrics_plugin.compare.figures.figure import Figure
from vllm_omni_metrics_plugin.compare.figures.visual import IMAGE, VIDEO
from vllm_omni_metrics_plugin.tables import markdown

_JUDGED = {
    "exact": "equal",
    "time": "tolerance, allowance",
    "ratio": "tolerance",
    "no": "no",
}


def requests() -> str:
    return _table(REQUESTS)


def audio() -> str:
    return _table(AUDIO)


def images() -> str:
    return _table(IMAGE)


def videos() -> str:
    return _table(VIDEO)


def bench_only() -> str:
    rows = ((_code(keys), meaning, server) for keys, meaning, server in BENCH_ONLY)
    return markdown(("in the bench", "meaning", "on the server"), rows)


_HEADER = ("figure", "in the bench", "of the server", "judged", "the bench's", "the server's")


def _table(figures: Sequence[Figure]) -> str:
    notes = "".join(f"- {', '.join(names)}: {why}\n" for why, names in _notes(figures))
    return f"{markdown(_HEADER, _rows(figures))}\n{notes}"


def _rows(figures: Iterable[Figure]) -> Iterable[tuple[str, ...]]:
    for figure in figures:
        yield (
            f"`{_name(figure)}`",
            f"`{figure.bench_formula}`",
            f"`{figure.server_formula}`",
            _JUDGED[figure.judged],
            figure.bench_meaning,
            figure.server_meaning,
        )


def _name(figure: Figure) -> str:
    end = {"total": "", "quantile": "_p<n>"}.get(figure.aggregate, f"_{figure.aggregate}")
    return figure.name + end


def _notes(figures: Iterable[Figure]) -> Iterable[tuple[str, list[str]]]:
    """What is said of one or more figures, once."""
    found: dict[str, list[str]] = {}
    for figure in figures:
        if figure.why:
            found.setdefault(figure.why, []).append(f"`{_name(figure)}`")
    return found.items()


def _code(keys: str) -> str:
    return ", ".join(f"`{key}`" for key in keys.split(", "))
