"""The options of every command that reads a running server."""

from __future__ import annotations

import argparse

from vllm_omni_metrics_plugin.scrape import Access


def add(parser: argparse.ArgumentParser) -> None:
    """Beside ``--url``."""
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="sent along to --url, such as 'Authorization: Bearer ...'; may be given several times",
    )
    parser.add_argument(
        "--cacert",
        metavar="FILE",
        help="certificates (PEM) of those who vouch for an https --url, instead of the system's",
    )


def chosen(options: argparse.Namespace) -> Access:
    return Access(tuple(options.header), options.cacert)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no header such as 'Name: value'")
    return name, value
