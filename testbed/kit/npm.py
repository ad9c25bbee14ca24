"""Packages of npm: the very one that is named, unpacked in the cache and checked by its hash."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from testbed.paths import CACHE

_FETCH_SECONDS = 300.0


class UnavailableError(Exception):
    """A package cannot be had here; the message says why."""


class Package(NamedTuple):
    name: str
    version: str
    #: Of the file as npm packs it, SHA-512 in base64.
    digest: str

    def fetched(self, cache: Path = CACHE) -> Path:
        """The folder with its files, fetched once; raises :class:`UnavailableError`."""
        folder = cache / "npm" / f"{self.name.replace('/', '-')}-{self.version}"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                self._fetch(Path(work))
                (Path(work) / "package").rename(folder)
        return folder

    def _fetch(self, work: Path) -> None:
        what = f"{self.name}@{self.version}"
        npm = shutil.which("npm")
        if npm is None:
            raise UnavailableError(f"{what}: there is no npm here")
        try:
            done = subprocess.run(
                [npm, "pack", "--silent", what],
                cwd=work,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{what}: npm took over {_FETCH_SECONDS:.0f} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise UnavailableError(f"{what}: npm: {said[0] if said else done.returncode}")
        (packed,) = work.glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != self.digest:
            raise UnavailableError(f"{what}: its SHA-512 is {found}, not {self.digest}")
        with tarfile.open(packed) as archive:
            archive.extractall(work, filter="data")


UPLOT = Package(
    "uplot",
    "1.6.32",
    "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
)
CHROMIUM = Package(
    "@sparticuz/chromium",
    "153.0.0",
    "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA==",
)
