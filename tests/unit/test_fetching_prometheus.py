"""Where there is no Prometheus to be had, what needs one says why, and does not ask again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import prometheus

Programs = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Stands in for apt-get and dpkg, and gives the file in which their calls are written down."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(prometheus, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(prometheus, "FOLDER", tmp_path / "cache" / "prometheus")
    monkeypatch.setattr(prometheus, "_refusals", [])

    def write(**scripts: str) -> Path:
        for name, script in scripts.items():
            program = folder / name.replace("_", "-")
            program.write_text(f'#!/bin/sh\necho "{program.name} $*" >> {calls}\n{script}\n')
            program.chmod(0o755)
        return calls

    return write


UNPACK = "mkdir -p $3/usr/bin; echo program > $3/usr/bin/prometheus"


def test_package_is_fetched_once(programs: Programs) -> None:
    calls = programs(apt_get="touch prometheus_1_all.deb", dpkg=UNPACK)
    for _ in range(2):
        assert (prometheus.fetched() / "prometheus").read_text() == "program\n"
    assert len(calls.read_text().splitlines()) == 2
    assert [path.name for path in prometheus.FOLDER.parent.iterdir()] == ["prometheus"]


def test_machine_without_lists_of_packages_gets_lists_of_its_own(programs: Programs) -> None:
    script = 'case "$*" in download*) exit 100;; *" download "*) touch prometheus_1_all.deb;; esac'
    calls = programs(apt_get=script, dpkg=UNPACK)
    assert (prometheus.fetched() / "prometheus").exists()
    first, *private, unpacked = calls.read_text().splitlines()
    assert first == "apt-get download prometheus"
    assert [call.split()[-1] for call in private] == ["update", "prometheus"]
    assert all(f"Dir::State::lists={prometheus.FOLDER.parent}/" in call for call in private)
    assert unpacked.startswith("dpkg -x ")


def test_apt_that_fails_is_quoted_and_not_asked_again(programs: Programs) -> None:
    calls = programs(apt_get="echo E: no network >&2; exit 100", dpkg=UNPACK)
    for _ in range(2):
        with pytest.raises(prometheus.UnavailableError, match=r"apt-get .* update: E: no network"):
            prometheus.fetched()
    assert len(calls.read_text().splitlines()) == 2


def test_machine_without_apt_says_so(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs()
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(prometheus.UnavailableError, match="there is no apt-get here"):
        prometheus.fetched()
