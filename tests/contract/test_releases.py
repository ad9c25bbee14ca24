"""The tests of the engine's seams, on the released sources of every supported release.

Each release's Python sources run with this environment's packages: no server, but the real classes.
The newest release is the one that is installed, and the tests of ``tests/engine`` run on it anyway.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.paths import RELEASES as SOURCES
from testbed.paths import ROOT
from vllm_omni_metrics_plugin.patches.seams.releases import RELEASES, Release

#: What differs by release; the tests beside them are about shapes and statistics of the newest.
SUITES = (
    "test_seams_resolve.py",
    "test_wrappers_pass_through.py",
    "test_drift.py",
    "test_async_omni_generate.py",
    "test_topology.py",
    "test_answers.py",
    "test_metrics_route.py",
    "test_outputs_of_the_real_processor.py",
    "test_lost_stats.py",
    "test_denoising.py",
    "test_executions.py",
    "test_real_connectors.py",
    "test_stat_logger.py",
    "test_collectors_survive_vllm.py",
)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The run of each release's tests, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {release.version: pool.submit(_run, release) for release in RELEASES[:-1]}


def _run(release: Release) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(str(ROOT / "tests" / "engine" / suite) for suite in SUITES),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_sources(release)), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def _sources(release: Release) -> Path:
    path = SOURCES / f"vllm-omni-{release.version}"
    assert path.is_dir(), "make venv unpacks it"
    return path


@pytest.mark.parametrize("release", RELEASES[:-1], ids=lambda release: release.version)
def test_every_seam_works_on_the_releases_own_classes(
    release: Release, runs: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    done = runs[release.version].result()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    print(release.version, summary)
    passed = re.search(r"(\d+) passed", summary)
    assert passed, summary
    assert int(passed[1]) > 200, summary


@pytest.mark.parametrize("release", RELEASES[:-1], ids=lambda release: release.version)
def test_sources_that_are_tested_are_those_of_the_release(release: Release) -> None:
    """Else the tests above would pass on the installed engine, whatever they are called."""
    said = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from importlib.metadata import version; from importlib.util import find_spec; "
            "print(version('vllm-omni'), *(find_spec(n).origin for n in ('vllm_omni', 'vllm')))",
        ],
        env={**os.environ, "PYTHONPATH": str(_sources(release))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    ).stdout
    where = _sources(release)
    assert said.split() == [
        release.version,
        str(where / "vllm_omni" / "__init__.py"),
        str(where / "vllm" / "__init__.py"),
    ]
