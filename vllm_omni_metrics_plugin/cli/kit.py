"""``vllm-omni-metrics kit``: dashboards, rules, a runbook and files for routers, to a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vllm_omni_metrics_plugin import kit


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known to the parser."""
    parser = commands.add_parser(
        "kit", help="write dashboards, rules, a runbook and files for routers to a folder"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder; its files of these names are replaced"
    )
    parser.add_argument(
        "--names",
        choices=kit.NAMES,
        default=kit.NAMES[0],
        help="how Prometheus has the families' names: vllm:omni_... as the server shows them, or "
        "vllm_omni_... where a collector in between has taken the colons",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0, or 1 if the folder cannot be written to."""
    try:
        for name, content in kit.files(options.names).items():
            path: Path = options.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(path)
    except OSError as error:
        print(f"the kit could not be written to {options.out}: {error}", file=sys.stderr)
        return 1
    return 0
