"""From the markup of docstrings to that of pages."""

from __future__ import annotations

import re


def in_page(text: str) -> str:
    """A docstring's markup as the pages have it."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text)
    return in_cell(text.replace("``", "`"))


def in_cell(text: str) -> str:
    """``text`` for a cell of a table."""
    return text.replace("|", "\\|")
