"""``vllm-omni-metrics doctor``: what is wrong, here or in a running server."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator

from vllm_omni_metrics_plugin.cli import access
from vllm_omni_metrics_plugin.doctor import examine
from vllm_omni_metrics_plugin.doctor.text import text


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="what is wrong, with the engine that is installed or in a running server",
        epilog="Exit status: 0 all good, 1 degraded, 2 broken.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the whole report as JSON")
    form.add_argument(
        "--verbose", action="store_true", help="also every patch, family and hook plugin"
    )
    parser.add_argument(
        "--url",
        help="a running server, whose /metrics is judged by the traffic it has seen; without it, "
        "the engine is imported and each patch tried on it, which takes half a minute",
    )
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        help="a Prometheus, whose memory of servers is held to the laws between their numbers; "
        "with --url or without",
    )
    parser.add_argument(
        "--hours",
        type=_hours,
        default=1.0,
        help="how far back --prometheus is asked (%(default)g)",
    )
    access.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 if all is good, 1 if something is missing, 2 if nothing is measured."""
    with _noise_on_standard_error():
        report = examine(
            dict(os.environ),
            options.url,
            access.chosen(options),
            prometheus_url=options.prometheus,
            hours=options.hours,
        )
    if options.json:
        print(json.dumps(report.as_data(), indent=2))
    else:
        print(text(report, verbose=options.verbose))
    return report.exit_code


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0.0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours, such as 0.5 or 24")
    return hours


@contextlib.contextmanager
def _noise_on_standard_error() -> Iterator[None]:
    """Standard output is the report's alone, whatever an import prints there, and however."""
    sys.stdout.flush()
    standard_output = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(standard_output, 1)
        os.close(standard_output)
