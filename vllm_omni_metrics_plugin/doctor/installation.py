"""What can be said of an environment without starting anything in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import distributions, entry_points

from vllm_omni_metrics_plugin import objectives, settings
from vllm_omni_metrics_plugin.channel.check import problem_with
from vllm_omni_metrics_plugin.channel.endpoint import Endpoint, private_endpoint
from vllm_omni_metrics_plugin.doctor.logged import warnings_logged
from vllm_omni_metrics_plugin.doctor.report import Finding
from vllm_omni_metrics_plugin.exporters.otel.environment import Signal, refusal
from vllm_omni_metrics_plugin.patches.seams.releases import BY_VERSION, RELEASES
from vllm_omni_metrics_plugin.settings import Settings

#: The engine's variable with the names of the plugins that it may load, of whatever group.
ALLOW_LIST = "VLLM_PLUGINS"
#: The engine's variable for a front end of another language.
RUST = "VLLM_USE_RUST_FRONTEND"
_GENERAL_PLUGINS = "vllm.general_plugins"
_OURS = "vllm_omni_metrics_plugin:register"
_ENGINES_OWN = "vllm_omni_register_models"
#: Groups whose entry points the engine loads by name.
_GROUPS = ("vllm.", "vllm_omni.")


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """The settings, and what the server would log about bad variables."""
    with warnings_logged() as warnings:
        parsed = settings.parse(environ)
    return parsed, [Finding("degraded", "settings", warning) for warning in warnings]


def check_switch(chosen: Settings, allowed: bool) -> list[Finding]:
    name = settings.PREFIX
    if not chosen.enabled:
        why = (
            f"{name} is not on in this environment: a server started from it has no metrics of ours"
        )
        return [Finding("degraded", "switch", f"{why}. Set {name}=1")]
    if not allowed:
        why = f"{ALLOW_LIST} does not name {_our_name()}, so the engine will not load the plugin"
        return [Finding("broken", "switch", f"{why}. Add it, without spaces around the comma")]
    return []


def is_allowed(environ: Mapping[str, str]) -> bool:
    """As the engine decides it: an exact name in the list, or no list."""
    names = _allowed(environ)
    return names is None or _our_name() in names


def check_front_end(environ: Mapping[str, str]) -> list[Finding]:
    """Whether what answers clients is a process that loads plugins at all."""
    if environ.get(RUST, "0").strip() in ("", "0"):
        return []
    why = f"{RUST} puts vLLM's front end in Rust before the engine, which loads no plugin: its "
    return [Finding("broken", "engine", f"{why}/metrics has none of our families")]


def check_allow_list(environ: Mapping[str, str]) -> list[Finding]:
    """Whether the engine finds the plugin, and what else its list of plugins leaves out."""
    registered = entry_points(group=_GENERAL_PLUGINS)
    findings = []
    if not any(entry.value == _OURS for entry in registered):
        findings.append(
            Finding(
                "broken",
                "installation",
                f"no installed package offers {_OURS} to the engine (entry point group "
                f"{_GENERAL_PLUGINS}); install the plugin with pip in the engine's environment",
            )
        )
    names = _allowed(environ)
    if names is None:
        return findings
    if _ENGINES_OWN not in names and _ENGINES_OWN in {entry.name for entry in registered}:
        findings.append(
            Finding(
                "degraded",
                "switch",
                f"{ALLOW_LIST} does not name {_ENGINES_OWN}, so the engine loses its own models; "
                "the list is one for the plugins of all groups",
            )
        )
    others = sorted(_engine_plugins() - {*names, _ENGINES_OWN, _our_name()})
    if others:
        findings.append(
            Finding("note", "switch", f"{ALLOW_LIST} also leaves out {', '.join(others)}")
        )
    return findings


def check_engine(versions: Mapping[str, str]) -> list[Finding]:
    """Whether there is an engine, and one that the plugin was tested on."""
    release = versions.get("vllm-omni")
    if release is None:
        why = "vllm-omni is not installed in this environment: there is nothing to observe"
        return [Finding("broken", "engine", why)]
    known = BY_VERSION.get(release)
    if known is None:
        tested = ", ".join(release.version for release in RELEASES)
        why = f"vllm-omni {release} is not among the tested releases ({tested})"
        return [Finding("degraded", "engine", why)]
    vllm = versions.get("vllm", "none").partition("+")[0]
    if vllm != known.vllm:
        why = f"vllm-omni {release} was tested with vLLM {known.vllm}, and vLLM {vllm} is installed"
        return [Finding("degraded", "engine", why)]
    return []


def check_objectives(chosen: Settings) -> list[Finding]:
    """Which objectives a server would judge requests by, and what is wrong with the others."""
    if chosen.slo is None:
        return []
    warnings: list[str] = []
    judged = objectives.read(chosen.slo, warnings.append)
    findings = [Finding("degraded", "objectives", warning) for warning in warnings]
    if judged:
        names = ", ".join(repr(objective.name) for objective in judged)
        why = f"{objectives.VARIABLE}={chosen.slo!r}: requests are judged by {names}"
        findings.append(Finding("note", "objectives", why))
    return findings


def check_otel(chosen: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Whether what a server would send over OTLP has somewhere to go."""
    signals: tuple[tuple[bool, Signal], ...] = (
        (chosen.traces, "TRACES"),
        (chosen.otlp_metrics, "METRICS"),
    )
    refused = [refusal(environ, signal) for is_on, signal in signals if is_on]
    return [Finding("degraded", "otlp", f"nothing is sent: {why}") for why in refused if why]


def check_channel(chosen: Settings) -> tuple[str, list[Finding]]:
    """Where the stage engines' events would arrive, and what keeps a server from listening."""
    if chosen.channel is None:
        endpoint, where = private_endpoint(), "a private socket"
    else:
        endpoint, where = Endpoint(chosen.channel, chosen.channel_key), chosen.channel
    problem = problem_with(endpoint)
    if problem is None:
        return where, []
    if problem.server_only:
        why = f"no server can listen at {where} on this host ({problem.text}), only send there"
        return where, [Finding("note", "channel", why)]
    why = (
        f"the stage engines' events cannot arrive by {where}: {problem.text}; "
        "no samples of transfers"
    )
    return where, [Finding("degraded", "channel", why)]


def _allowed(environ: Mapping[str, str]) -> list[str] | None:
    value = environ.get(ALLOW_LIST)
    return None if value is None else value.split(",")


def _our_name() -> str:
    registered = entry_points(group=_GENERAL_PLUGINS)
    return next((entry.name for entry in registered if entry.value == _OURS), "omni_metrics")


def _engine_plugins() -> set[str]:
    """Names of everything that is installed for the engine to load."""
    return {
        entry.name
        for distribution in distributions()
        for entry in distribution.entry_points
        if entry.group.startswith(_GROUPS)
    }
