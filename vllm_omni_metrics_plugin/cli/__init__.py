"""The command ``vllm-omni-metrics``: what is installed, and what a server does with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.cli import compare, doctor, families, hooks

#: Each module adds a command; what it sets as ``run`` is given the options and returns the status.
_COMMANDS = (compare, doctor, families, hooks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    parser = argparse.ArgumentParser(prog="vllm-omni-metrics", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
