"""The command ``vllm-omni-metrics``: what is installed, and what a server does with it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from vllm_omni_metrics_plugin import __version__, catalog, settings
from vllm_omni_metrics_plugin.compare import command
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.hooks import HookManager
from vllm_omni_metrics_plugin.hooks.manager import BUILT_IN

DEFAULT_URL = "http://localhost:8000"
_SECONDS = 5.0


class NoAnswer(Exception):
    """There is no server at the address, or it has no metrics; the message says which."""


class Seen(NamedTuple):
    """What a server says about one plugin's implementation of one hook."""

    calls: int
    errors: int
    dropped: int
    listening: bool


#: By hook and plugin.
Live = dict[tuple[str, str], Seen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    parser = argparse.ArgumentParser(prog="vllm-omni-metrics", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    hooks = commands.add_parser(
        "hooks", help="every hook, who implements it, and how often it was called"
    )
    hooks.add_argument(
        "--url", help=f"the server whose calls are shown; {DEFAULT_URL} is tried by default"
    )
    hooks.set_defaults(run=_hooks)
    command.add_parser(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _hooks(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    installed = implementations()
    live: Live = {}
    try:
        live = ask(options.url or DEFAULT_URL)
        footer = f"Calls as {options.url or DEFAULT_URL} counted them."
    except NoAnswer as why:
        footer = f"No calls are shown: {why}."
        if options.url is None:
            footer += " Name your server with --url."
    print(table(installed, live))
    print(f"\n{footer}")
    return 1 if options.url is not None and not live else 0


def implementations() -> dict[str, list[str]]:
    """By hook, the plugins of this environment that a server started from it would call."""
    wanted = settings.parse(os.environ)
    manager = HookManager()
    if BUILT_IN not in wanted.hooks_blocked:
        manager.register(PrometheusExporter({}, CollectorRegistry()), BUILT_IN)
    manager.load_installed(wanted)
    return {
        name: [listener.plugin for listener in hook.listeners]
        for name, hook in vars(manager.hooks).items()
    }


def ask(url: str) -> Live:
    """What the server at ``url`` says about its hooks; raises :class:`NoAnswer`."""
    address = f"{url.rstrip('/')}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as response:
            text = response.read().decode()
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise NoAnswer(f"{address} does not answer ({error})") from None
    values: dict[str, dict[tuple[str, str], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(f"{catalog.PREFIX}metrics_hook_") and "hook" in sample.labels:
                key = (sample.labels["hook"], sample.labels["plugin"])
                values.setdefault(sample.name, {})[key] = sample.value
    said = {
        stem: values.get(catalog.BY_STEM[f"metrics_hook_{stem}"].name, {})
        for stem in ("calls_total", "errors_total", "dropped_events_total", "listening")
    }
    if not said["calls_total"]:
        raise NoAnswer(f"{address} knows nothing of hooks; is VLLM_OMNI_METRICS=1 set there?")
    return {
        key: Seen(
            int(calls),
            int(said["errors_total"].get(key, 0)),
            int(said["dropped_events_total"].get(key, 0)),
            bool(said["listening"].get(key)),
        )
        for key, calls in said["calls_total"].items()
    }


def table(installed: dict[str, list[str]], live: Live) -> str:
    """One line per hook and implementation, aligned; ``-`` where there is nothing to say."""
    lines = [("HOOK", "PLUGIN", "CALLS", "ERRORS", "DROPPED", "STATE")]
    for hook, plugins in installed.items():
        others = [plugin for name, plugin in live if name == hook and plugin not in plugins]
        for plugin in [*plugins, *others]:
            seen = live.get((hook, plugin))
            if seen is None:
                state = "not loaded by the server" if live else "installed"
                lines.append((hook, plugin, "-", "-", "-", state))
            else:
                state = "listening" if seen.listening else "switched off or unregistered"
                counts = (str(seen.calls), str(seen.errors), str(seen.dropped))
                lines.append((hook, plugin, *counts, state))
        if not plugins and not others:
            lines.append((hook, "-", "-", "-", "-", "nobody listens"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 2 <= column <= 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
