"""``vllm-omni-metrics compare``: what the bench measured beside what the server counted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm_omni_metrics_plugin import scrape
from vllm_omni_metrics_plugin.cli import access
from vllm_omni_metrics_plugin.compare import text, totals
from vllm_omni_metrics_plugin.compare.comparison import Row, Tolerance, compare
from vllm_omni_metrics_plugin.compare.result import NotABenchError, Result, read

AGREE, APART, CANNOT = 0, 1, 2
_TIMEOUT_SECONDS = 10.0


class CompareError(Exception):
    """The server or a file is not there or not what it should be; the message says which."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known to the parser."""
    parser = commands.add_parser(
        "compare",
        help="what `vllm bench serve --omni` measured beside what the server counted",
        description=(
            "Exit status: 0 all that is judged agrees, 1 some of it does not, 2 nothing could be "
            "compared. Without --url the bench's figures are shown under the server's names."
        ),
    )
    parser.add_argument(
        "--bench", type=Path, required=True, metavar="FILE", help="what --save-result wrote"
    )
    parser.add_argument("--url", help="the server that was benched, as http://host:port")
    access.add(parser)
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FILE",
        help="the server's /metrics of before the bench, which is subtracted; "
        "without it everything since the server's start is compared",
    )
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=0.1,
        metavar="SHARE",
        help="how far apart both may be, relative to the server's value (default: 0.1)",
    )
    parser.add_argument(
        "--allowance",
        type=_seconds,
        default=0.01,
        metavar="SECONDS",
        help="what a client's times may have on top for the way to the server and back "
        "(default: 0.01)",
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the comparison and return the exit status."""
    try:
        return _run(options)
    except (CompareError, NotABenchError) as why:
        print(f"vllm-omni-metrics compare: {why}", file=sys.stderr)
        return CANNOT


def _run(options: argparse.Namespace) -> int:
    result = read(options.bench)
    if options.url is None:
        if options.before is not None:
            raise CompareError("--before is subtracted from a server's metrics: name it by --url")
        _print_renamed(result, options.json)
        return AGREE
    counted = ask(options.url, access.chosen(options))
    if options.before is not None:
        counted = _subtract(counted, options.before)
    tolerance = Tolerance(options.tolerance, options.allowance)
    rows = compare(result, counted, tolerance)
    judged = [row for row in rows if row.verdict in ("agree", "apart")]
    status = AGREE if all(row.verdict == "agree" for row in judged) else APART
    remarks = _remarks(result, counted, options)
    if options.json:
        _print_json(
            {
                "bench": str(options.bench),
                "url": options.url,
                "before": None if options.before is None else str(options.before),
                "tolerance": tolerance.relative,
                "allowance_seconds": tolerance.allowance_seconds,
                "figures": [text.as_json(row) for row in rows],
                "remarks": remarks,
                "status": status,
            }
        )
    else:
        print("\n\n".join((text.table(rows), "\n".join(remarks), _verdict(judged, tolerance))))
    return status


def ask(url: str, access: scrape.Access | None = None) -> totals.Totals:
    """What the server at ``url`` has counted; raises :class:`CompareError`."""
    try:
        text = scrape.fetch(url, _TIMEOUT_SECONDS, access)
    except scrape.NoAnswerError as why:
        raise CompareError(str(why)) from None
    return _parse(text, scrape.address(url))


def _subtract(counted: totals.Totals, path: Path) -> totals.Totals:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CompareError(f"{path} cannot be read ({error})") from None
    try:
        return counted.since(_parse(text, str(path)))
    except totals.UnreadableMetricsError as why:
        raise CompareError(f"{path} cannot be subtracted: {why}") from None


def _parse(text: str, origin: str) -> totals.Totals:
    try:
        return totals.parse(text)
    except totals.UnreadableMetricsError as why:
        raise CompareError(f"{origin}: {why}") from None


def _remarks(result: Result, counted: totals.Totals, options: argparse.Namespace) -> list[str]:
    remarks = []
    if options.before is None:
        remarks.append(
            "Everything since the server's start is compared; save its /metrics before the bench "
            "and name the file with --before to compare the bench alone."
        )
    else:
        remarks.append(f"What the server has counted since {options.before} is compared.")
    if counted.unfinished:
        remarks.append(f"The server has {counted.unfinished:g} unfinished requests: ask again.")
    if result.runs > 1:
        remarks.append(f"{options.bench} holds {result.runs} runs; this is the last.")
    return remarks


def _verdict(judged: Sequence[Row], tolerance: Tolerance) -> str:
    apart = [row.measured.name for row in judged if row.verdict == "apart"]
    limits = (
        f"within {tolerance.relative:.0%}, times {1000 * tolerance.allowance_seconds:g} ms on top"
    )
    if apart:
        return f"{len(apart)} of {len(judged)} figures apart ({limits}): {', '.join(apart)}"
    return f"{len(judged)} figures agree ({limits}; totals exactly)."


def _print_renamed(result: Result, as_json: bool) -> None:
    figures = result.figures()
    if as_json:
        _print_json({"figures": [text.bench_as_json(m) for m in figures if m.value is not None]})
    else:
        print(text.renamed(figures))


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2, allow_nan=False))


def _share(text: str) -> float:
    return _positive(text, "a share such as 0.1")


def _seconds(text: str) -> float:
    return _positive(text, "seconds such as 0.01")


def _positive(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
