"""A language model that writes the prompts of an image model, each the tiny one of its kind."""

from __future__ import annotations

from pathlib import Path

from testbed.models import llm, qwen_image


def write(folder: Path) -> None:
    qwen_image.write(folder)
    llm.write(folder / "llm")
