"""A package of npm is the one that is named, or there is none; nothing is fetched twice."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.kit.npm import Package, UnavailableError

Npm = Callable[[str], Path]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """What npm packs."""
    file = tmp_path / "packed.tgz"
    with tarfile.open(file, "w:gz") as archive:
        content = tarfile.TarInfo("package/dist/a.js")
        content.size = 3
        archive.addfile(content, io.BytesIO(b"a()"))
    return file


@pytest.fixture
def package(packed: Path) -> Package:
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    return Package("@some/charts", "1.2.3", digest)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    """Makes an npm of a script, and gives the file in which its calls are written down."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    calls.touch()
    monkeypatch.setenv("PATH", str(folder))

    def write(script: str) -> Path:
        program = folder / "npm"
        program.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$*" >> {calls}\n{script}\n')
        program.chmod(0o755)
        return calls

    return write


def test_package_is_fetched_once(package: Package, packed: Path, npm: Npm, tmp_path: Path) -> None:
    calls = npm(f"cp {packed} .")
    for _ in range(2):
        assert (package.fetched(tmp_path) / "dist" / "a.js").read_text() == "a()"
    assert calls.read_text() == "pack --silent @some/charts@1.2.3\n"
    assert [path.name for path in (tmp_path / "npm").iterdir()] == ["@some-charts-1.2.3"]


def test_package_with_another_hash_is_refused_and_not_kept(
    package: Package, packed: Path, npm: Npm, tmp_path: Path
) -> None:
    npm(f"cp {packed} .")
    with pytest.raises(UnavailableError, match=r"its SHA-512 is .+, not other"):
        package._replace(digest="other").fetched(tmp_path)
    assert list((tmp_path / "npm").iterdir()) == []


def test_npm_that_fails_is_quoted(package: Package, npm: Npm, tmp_path: Path) -> None:
    npm("echo no network >&2; exit 1")
    with pytest.raises(UnavailableError, match=r"@some/charts@1\.2\.3: npm: no network"):
        package.fetched(tmp_path)


@pytest.mark.usefixtures("npm")
def test_machine_without_npm_is_told_so(package: Package, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no npm here"):
        package.fetched(tmp_path)
