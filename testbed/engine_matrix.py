"""``make test-engines``: the suites on every release of the engine that the plugin knows.

The contract tests run for each release in the default environment, over that release's sources; the
end-to-end tests run where the release itself is installed. What is left for people and programs:
a table, ``table.md``, and a report of each run, ``*.xml``, in ``.cache/testbed/engines``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from testbed.install.environments import DEFAULT, ENVIRONMENTS, Environment
from testbed.paths import CACHE, ROOT
from vllm_omni_metrics_plugin import tables
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES

REPORTS = CACHE / "engines"
TABLE = REPORTS / "table.md"
_HEADINGS = ("vllm-omni", "suite", "passed", "failed", "skipped", "minutes")
#: pytest's exit statuses for tests that ran, whether they passed or not.
_RAN = (0, 1)


@dataclass(frozen=True)
class Run:
    """One suite on one release."""

    release: str
    suite: str
    environment: Environment
    #: What pytest is asked for.
    tests: tuple[str, ...]

    @property
    def report(self) -> Path:
        return REPORTS / f"{self.suite}-{self.release}.xml"


@dataclass(frozen=True)
class Result:
    """What became of a run."""

    run: Run
    passed: int
    failed: int
    skipped: int
    seconds: float
    #: Why it is no result, if pytest did not even run.
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.trouble and not self.failed and self.passed > 0

    def row(self) -> tuple[str, ...]:
        counts = (str(self.passed), str(self.failed), str(self.skipped))
        minutes = f"{self.seconds / 60:.1f}"
        if self.trouble:
            counts = (self.trouble, "-", "-")
        return (self.run.release, self.run.suite, *counts, minutes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-engines")
    parser.add_argument(
        "engines", nargs="*", metavar="release", help=f"of {', '.join(BY_VERSION)}; default all"
    )
    parser.add_argument("--suite", action="append", choices=("contract", "e2e"), dest="suites")
    options = parser.parse_args()
    unknown = [engine for engine in options.engines if engine not in BY_VERSION]
    if unknown:
        parser.error(f"unknown: {' '.join(unknown)}; the plugin knows {', '.join(BY_VERSION)}")
    REPORTS.mkdir(parents=True, exist_ok=True)
    results = []
    for run in runs(options.engines or list(BY_VERSION), options.suites or ("contract", "e2e")):
        print(f"== {run.suite} on {run.release}", flush=True)
        results.append(_do(run))
        TABLE.write_text(markdown(results))
    print(tables.aligned(_HEADINGS, [result.row() for result in results], right=(2, 3, 4, 5)))
    print(f"the same as Markdown: {TABLE.relative_to(ROOT)}")
    return 0 if all(result.good for result in results) else 1


def runs(releases: Iterable[str], suites: Sequence[str]) -> list[Run]:
    """All there is to run, the quick ones first."""
    found = []
    for release in releases:
        if "contract" in suites:
            # The newest is the installed one, which they run on as it is.
            newest = release == RELEASES[-1].version
            tests = ("tests/engine",) if newest else ("tests/contract", "-k", release)
            found.append(Run(release, "contract", DEFAULT, tests))
        if "e2e" in suites and release in ENVIRONMENTS:
            found.append(Run(release, "e2e", ENVIRONMENTS[release], ("tests/e2e",)))
    return sorted(found, key=lambda run: run.suite)


def read(run: Run, seconds: float, status: int) -> Result:
    """The counts in pytest's report of a run that ended with an exit status."""
    if status not in _RAN or not run.report.exists():
        return Result(run, 0, 0, 0, seconds, f"pytest ended with status {status}")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in ElementTree.parse(run.report).getroot().iter("testsuite"):
        for name in counts:
            counts[name] += int(suite.get(name, 0))
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return Result(run, passed, failed, counts["skipped"], seconds)


def markdown(results: Iterable[Result]) -> str:
    return tables.markdown(_HEADINGS, [result.row() for result in results])


def _do(run: Run) -> Result:
    began = time.monotonic()
    run.report.unlink(missing_ok=True)
    if run.environment is not DEFAULT:
        install = [sys.executable, "-m", "testbed.install", "--engine", run.release]
        if subprocess.run(install, cwd=ROOT, check=False).returncode:
            seconds = time.monotonic() - began
            return Result(run, 0, 0, 0, seconds, "could not be installed")
        began = time.monotonic()
    pytest = [str(run.environment.python), "-m", "pytest", *run.tests]
    status = subprocess.run(
        [*pytest, "-q", f"--junitxml={run.report}"], cwd=ROOT, check=False
    ).returncode
    return read(run, time.monotonic() - began, status)


if __name__ == "__main__":
    sys.exit(main())
