"""``vllm-omni-metrics hooks``: who listens to what, where it is from, how often it was called."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import Any, NamedTuple

from vllm_omni_metrics_plugin import catalog, settings
from vllm_omni_metrics_plugin.cli import access
from vllm_omni_metrics_plugin.doctor import hook_plugins
from vllm_omni_metrics_plugin.doctor.report import HookPlugin
from vllm_omni_metrics_plugin.hooks.loading import BUILT_IN
from vllm_omni_metrics_plugin.scrape import Access, NoAnswerError, scrape
from vllm_omni_metrics_plugin.tables import aligned

DEFAULT_URL = "http://localhost:8000"
_TIMEOUT_SECONDS = 5.0


class HookCalls(NamedTuple):
    """What a server counts of one plugin's implementation of one hook."""

    #: None where the server keeps no account: of the exporter's own hooks that never failed.
    calls: int | None
    errors: int
    dropped: int
    listening: bool


_NEVER_FAILED = HookCalls(None, 0, 0, True)

#: By hook and plugin.
Live = dict[tuple[str, str], HookCalls]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known to the parser."""
    parser = commands.add_parser(
        "hooks", help="every hook, who implements it, and how often it was called"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.add_argument(
        "--url", help=f"the server whose calls are shown; {DEFAULT_URL} is tried by default"
    )
    access.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exit status 1 if ``--url`` was given and no server with the plugin answers there."""
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    loaded = hook_plugins.load(settings.parse(os.environ))
    for warning in loaded.warnings:
        logging.warning("%s", warning)
    live: Live | None = None
    try:
        live = ask(options.url or DEFAULT_URL, access.chosen(options))
        footer = f"Calls as {options.url or DEFAULT_URL} counted them."
    except NoAnswerError as why:
        footer = f"No calls are shown: {why}."
        if options.url is None:
            footer += " Name your server with --url."
    if options.json:
        print(json.dumps(as_data(loaded, live, options.url or DEFAULT_URL), indent=2))
    else:
        print("\n\n".join((table(loaded.called, live), origins(loaded.plugins), footer)))
    return 1 if options.url is not None and live is None else 0


def ask(url: str, access: Access | None = None) -> Live:
    """What the server at ``url`` says about its hooks; raises :class:`NoAnswerError`."""
    page = scrape(url, _TIMEOUT_SECONDS, access)
    counts = {
        stem: {
            (sample.labels["hook"], sample.labels["plugin"]): sample.value
            for sample in page.named(catalog.BY_STEM[f"metrics_hook_{stem}"].name)
        }
        for stem in ("calls_total", "errors_total", "dropped_events_total", "listening")
    }
    if not page.has_plugin:
        raise NoAnswerError(
            f"{url.rstrip('/')}/metrics knows nothing of hooks; is VLLM_OMNI_METRICS=1 set there?"
        )
    # Of the exporter itself a server shows what failed, and how many events there were of some.
    live = {
        (sample.labels["hook"], BUILT_IN): _NEVER_FAILED._replace(calls=int(sample.value))
        for sample in page.named(catalog.BY_STEM["metrics_events_total"].name)
    }
    return live | {
        key: HookCalls(
            int(calls),
            int(counts["errors_total"].get(key, 0)),
            int(counts["dropped_events_total"].get(key, 0)),
            bool(counts["listening"].get(key)),
        )
        for key, calls in counts["calls_total"].items()
    }


def table(installed: dict[str, list[str]], live: Live | None) -> str:
    """One line per hook and implementation, aligned; ``-`` where there is nothing to say."""
    lines = []
    for hook, plugins in installed.items():
        others = [plugin for name, plugin in live or () if name == hook and plugin not in plugins]
        for plugin in [*plugins, *others]:
            quiet = _NEVER_FAILED if live is not None and plugin == BUILT_IN else None
            calls = (live or {}).get((hook, plugin), quiet)
            if calls is None:
                state = "installed" if live is None else "not loaded by the server"
                lines.append((hook, plugin, "-", "-", "-", state))
            else:
                state = "listening" if calls.listening else "switched off or unregistered"
                called = "-" if calls.calls is None else str(calls.calls)
                counts = (called, str(calls.errors), str(calls.dropped))
                lines.append((hook, plugin, *counts, state))
        if not plugins and not others:
            lines.append((hook, "-", "-", "-", "-", "nobody listens"))
    header = ("HOOK", "PLUGIN", "CALLS", "ERRORS", "DROPPED", "STATE")
    return aligned(header, lines, right=(2, 3, 4))


def origins(plugins: list[HookPlugin]) -> str:
    """One line per hook plugin: where it comes from, and where and how it is called."""
    rows = [
        (
            plugin.name,
            plugin.origin,
            ", ".join(plugin.processes) or "-",
            _slow(plugin),
            plugin.status,
        )
        for plugin in plugins
    ]
    return aligned(("PLUGIN", "FROM", "PROCESSES", "SLOW", "STATUS"), rows)


def as_data(loaded: hook_plugins.Loaded, live: Live | None, url: str) -> dict[str, Any]:
    """What ``--json`` prints; the numbers are null where the server has none."""
    return {
        "url": url if live is not None else None,
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "value": plugin.value,
                "status": plugin.status,
                "reason": plugin.reason,
                "processes": plugin.processes,
                "hooks": plugin.hooks,
                "slow": plugin.slow,
            }
            for plugin in loaded.plugins
        ],
        "calls": [
            {"hook": hook, "plugin": plugin, **calls._asdict()}
            for (hook, plugin), calls in sorted((live or {}).items())
        ],
        "warnings": loaded.warnings,
    }


def _slow(plugin: HookPlugin) -> str:
    if not plugin.slow:
        return "no" if plugin.hooks else "-"
    return "yes" if plugin.slow == plugin.hooks else ", ".join(plugin.slow)
