"""From the markup of docstrings to that of pages."""

from __future__ import annotations

import re


def in_page(text: str) -> str:
    """A docstring's markup as the pages have it."""
    return re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text).replace("``", "`")
