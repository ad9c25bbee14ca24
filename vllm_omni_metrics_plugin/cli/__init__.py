"""The command vllm-omni-metrics: what is installed, and what a server does with it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vllm_omni_metrics_plugin import __version__
from vllm_omni_metrics_plugin.cli import compare, doctor, families, hooks, kit

#: Each module adds a command; what it sets as ``run`` is given the options and returns the status.
_COMMANDS = (compare, doctor, families, hooks, kit)
#: What a shell says of a program that SIGPIPE ended.
_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as `head` does; the interpreter must not flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="vllm-omni-metrics", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in _COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
