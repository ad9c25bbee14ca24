"""The fenced blocks of a page, for tests that run what it shows."""

from __future__ import annotations

import re
from pathlib import Path

_FENCED = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> dict[str, str]:
    """The blocks that have a file name, or else their language, by that."""
    found = _FENCED.findall(page.read_text())
    return {name or language: body for language, name, body in found}
