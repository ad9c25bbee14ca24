"""Writes one tiny model: ``python -m testbed.models.write qwen3_tts FOLDER``.

The same weights everywhere: memory that a generator leaves uninitialised is filled with NaN, and
found before it becomes part of a model that works on one machine and not on the next.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from safetensors import safe_open


def main(module: str, folder: Path) -> int:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.manual_seed(0)
    importlib.import_module(f"testbed.models.{module}").write(folder)
    unset = uninitialised(folder)
    if unset:
        print(f"{module} leaves weights uninitialised:", *unset, sep="\n  ", file=sys.stderr)
    return int(bool(unset))


def uninitialised(folder: Path) -> list[str]:
    """The weights in ``folder`` that hold a NaN, as ``file: name``."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            found += [
                f"{path.relative_to(folder)}: {name}"
                for name in weights.keys()  # noqa: SIM118, it is no dictionary
                if weights.get_tensor(name).isnan().any()
            ]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
