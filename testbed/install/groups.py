"""The dependency groups of ``pyproject.toml``, as lists that any pip takes.

``pip install --group`` needs a newer pip than the one that comes with most interpreters.
"""

from __future__ import annotations

import sys
from typing import Any

from testbed.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PYPROJECT = ROOT / "pyproject.toml"


def requirements(*names: str) -> list[str]:
    """What the groups of these names hold, those that they include among it.

    Raises KeyError for a group that there is not.
    """
    groups = pyproject()["dependency-groups"]
    found: list[str] = []
    for name in names:
        for item in groups[name]:
            found += [item] if isinstance(item, str) else requirements(item["include-group"])
    return found


def claimed_pythons() -> list[str]:
    """The versions that the classifiers name, oldest first, such as ``3.11``."""
    prefix = "Programming Language :: Python :: 3."
    names = pyproject()["project"]["classifiers"]
    minors = sorted(int(n.removeprefix(prefix)) for n in names if n.startswith(prefix))
    return [f"3.{minor}" for minor in minors]


def pyproject() -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())
    return data
