"""Environments without the engine: small, made in seconds, for the tests that do without it.

As a program, ``make check-pythons``: the tests on every Python that the package claims and that is
found here. The environment variable ``PYTHONS`` names the versions instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed.install import interpreters, steps
from testbed.install.environments import variables
from testbed.install.groups import PYPROJECT, claimed_pythons, requirements
from testbed.paths import CACHE, ROOT

TESTS = ("tests/unit", "examples", "tests/process")


@dataclass(frozen=True)
class CheckEnvironment:
    """The plugin, in place, and the requirements of some dependency groups."""

    folder: Path
    groups: tuple[str, ...]

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def state(self) -> Path:
        """Holds a stamp and a log for each step."""
        return self.folder / "testbed-state"

    def steps(self, python: str) -> list[steps.Step]:
        """What makes it; ``python`` is the interpreter that it is made with."""
        wanted = requirements("build", *self.groups)
        about = [PYPROJECT, ROOT / "setup.cfg", ROOT / "vllm_omni_metrics_plugin" / "__init__.py"]
        return [
            steps.Step(
                "venv", "virtual environment", [python], lambda log: self._create(python, log)
            ),
            steps.Step("tools", "tools", wanted, lambda log: self._pip(log, *wanted)),
            steps.Step(
                "plugin",
                "plugin",
                about,
                lambda log: self._pip(log, "--no-build-isolation", "-e", ROOT),
            ),
        ]

    def _create(self, python: str, log: Path) -> None:
        command: list[str | Path] = [python, "-m", "venv", "--clear", self.folder]
        steps.call(command, log, environment=variables())
        self.state.mkdir(exist_ok=True)

    def _pip(self, log: Path, *arguments: str | Path) -> None:
        # Python compiles what it imports, which is the smaller part of it.
        command = [self.python, "-m", "pip", "install", "--no-compile", *arguments]
        steps.call(command, log, environment=variables())


#: What ``make check`` runs in.
CHECK = CheckEnvironment(ROOT / ".venv-check", ("check",))


def main() -> int:
    os.chdir(ROOT)
    outcomes = {}
    for version in os.environ.get("PYTHONS", "").split() or claimed_pythons():
        python = interpreters.find(version)
        print(f"== Python {version}", flush=True)
        outcomes[version] = "not found" if python is None else _outcome(version, python)
    for version, outcome in outcomes.items():
        print(f"Python {version}: {outcome}")
    passed = [outcome == "passed" for outcome in outcomes.values() if outcome != "not found"]
    return 0 if passed and all(passed) else 1


def _outcome(version: str, python: str) -> str:
    environment = CheckEnvironment(ROOT / f".venv-check-{version}", ("test",))
    try:
        with steps.only_one(CACHE / "install.lock"):
            steps.do(environment.steps(python), environment.state)
    except steps.StepFailedError as failure:
        print(failure, file=sys.stderr)
        return "not installed"
    command = [str(environment.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    return "passed" if subprocess.run(command, check=False).returncode == 0 else "failed"


if __name__ == "__main__":
    sys.exit(main())
