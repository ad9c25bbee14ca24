"""The wheel as a user's pip installs it beside the engine, and a server of it elsewhere."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.clients import audio
from testbed.paths import ROOT
from testbed.server import Server, binary
from tests.e2e.conftest import ON, doctor, observing, outcomes
from vllm_omni_metrics_plugin import __version__

PACKAGE = "vllm_omni_metrics_plugin"
#: Tells this wheel's code from the checkout's, which is installed, too.
VERSION = f"{__version__}+wheel"


def pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [binary("python"), "-m", "pip", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, in which only the version differs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # What must not be in the wheel has to be there when it is built.
    for name in (PACKAGE, "tests", "testbed", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = source / PACKAGE / "__init__.py"
    text = package.read_text()
    assert text.count(f'"{__version__}"') == 1
    package.write_text(text.replace(f'"{__version__}"', f'"{VERSION}"'))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in."""
    target = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", target, wheel)
    return target


@pytest.fixture(scope="module")
def wheel_server(
    site: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Speech; every process of it finds the wheel first and works outside of the checkout."""
    environment = {**ON, "PYTHONPATH": str(site)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        with Server("tts", env=environment, log_path=logs / "wheel.log") as server:
            yield server


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"{PACKAGE}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = f"{PACKAGE}-{VERSION}.dist-info/"
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert f"{PACKAGE}/py.typed" in sources
    assert {name for name in names if not name.startswith(about)} == sources
    assert {f"{about}{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")} <= (
        names
    )


def test_wheel_names_every_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{PACKAGE}-{VERSION}.dist-info/entry_points.txt").decode()
    declared = configparser.ConfigParser()
    declared.read_string(text)
    assert {group: dict(declared[group]) for group in declared.sections()} == {
        "console_scripts": {"vllm-omni-metrics": f"{PACKAGE}.cli:main"},
        "pytest11": {"omni_hooks": f"{PACKAGE}.pytest_fixtures"},
        "vllm.general_plugins": {"omni_metrics": f"{PACKAGE}:register"},
        "vllm_omni.general_plugins": {"omni_metrics": f"{PACKAGE}:register"},
    }


def test_code_and_entry_points_of_the_server_are_the_wheels(
    wheel_server: Server, site: Path
) -> None:
    """What an interpreter with the server's environment and folder finds."""
    script = f"""
import json
from importlib.metadata import entry_points, version
import {PACKAGE} as package
print(json.dumps([package.__file__, package.__version__, version(package.__name__), [
    entry.dist.version for group in ("vllm.general_plugins", "vllm_omni.general_plugins")
    for entry in entry_points(group=group) if entry.name == "omni_metrics"
]]))
"""
    done = subprocess.run(
        [binary("python"), "-c", script],
        env=wheel_server.environment,
        cwd=Path(f"/proc/{wheel_server.pid}/cwd").resolve(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [
        str(site / PACKAGE / "__init__.py"),
        *(VERSION, VERSION, [VERSION, VERSION]),
    ]
    started = re.findall(r"omni-metrics (\S+) is on", wheel_server.log_path.read_text())
    assert started == [VERSION]


def test_speech_of_a_server_with_the_wheel_is_counted(wheel_server: Server) -> None:
    with observing(wheel_server) as seen:
        answer = audio.speech(wheel_server.url, tokens=20, stream="audio")
    assert answer.status == 200
    assert sum(outcomes(seen.gained).values()) == 1
    assert seen.gained.sum("vllm:omni_audio_frames_total") == answer.samples > 0
    assert seen.gained.sum("vllm:omni_audio_ttfp_seconds_count") == 1
    # The stages report from processes of their own.
    assert seen.gained.sum("vllm:omni_transfer_size_bytes_count") > 0


def test_doctor_of_the_wheel_is_content_with_its_server(wheel_server: Server) -> None:
    status, report = doctor(wheel_server)
    assert (status, report["plugin_version"]) == (0, VERSION)
