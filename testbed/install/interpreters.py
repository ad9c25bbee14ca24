"""Finding interpreters, of the versions that something is made for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from testbed.install.steps import StepFailedError


def choose(versions: Iterable[str]) -> str:
    """The path of an interpreter of one of these versions, such as ``3.11``; earlier ones first.

    The environment variable ``PYTHON`` names the only one to look at. Raises
    :class:`testbed.install.steps.StepFailedError` when there is none.
    """
    wanted = tuple(versions)
    only = os.environ.get("PYTHON")
    names = (only,) if only else (*(f"python{version}" for version in wanted), "python3")
    for name in names:
        path = shutil.which(name)
        if path is not None and _version(path) in wanted:
            return path
    looked_at = " ".join(names)
    raise StepFailedError(
        f"found no Python {', '.join(wanted)} (looked at: {looked_at}); set PYTHON=..."
    )


def find(version: str) -> str | None:
    """The path of an interpreter of this very version, in the path or among pyenv's."""
    for path in _places(version):
        if _version(path) == version:
            return path
    return None


def _places(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))


def _version(path: str) -> str:
    """Empty when it does not run: pyenv puts commands into the path that only say so."""
    try:
        done = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
