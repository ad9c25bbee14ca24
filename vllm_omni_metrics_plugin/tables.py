"""Tables of text: aligned for a terminal, or in Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Sequence

_BETWEEN = "  "
#: A column is not made narrower than this, however little space there is.
_LEAST = 20
#: A pipe without a backslash of its own before it; two backslashes are one that is shown.
_BARE_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")


def aligned(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
    width: int | None = None,
) -> str:
    """Columns that are as wide as they have to be; those numbered in ``right`` end flush.

    What is wider than ``width`` characters has its last column wrapped, down to a certain width.
    """
    lines = [[_one_line(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    if width is not None:
        others = sum(widths[:-1]) + len(_BETWEEN) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(_LEAST, width - others))
        lines = [wrapped for line in lines for wrapped in _wrapped(line, widths[-1])]
    return "\n".join(
        _BETWEEN.join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same in Markdown, with a line feed at the end.

    No cell can break it: a line feed becomes a space, and a pipe is escaped unless it is already.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return _BARE_PIPE.sub(r"\1\\|", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _wrapped(line: Sequence[str], width: int) -> list[list[str]]:
    """The line as several, of which only the first has more than its last cell."""
    *others, last = line
    parts = textwrap.wrap(last, width, break_long_words=False, break_on_hyphens=False) or [""]
    return [
        [*(others if number == 0 else [""] * len(others)), part]
        for number, part in enumerate(parts)
    ]
