"""The environment variables, parsed once into one frozen object.

:data:`VARIABLES` is the only list of them: the README table is checked against it. A bad value is
reported in one warning that names the variable, the value and what is used instead.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from vllm_omni_metrics_plugin import catalog
from vllm_omni_metrics_plugin.media.playback import PLAYERS
from vllm_omni_metrics_plugin.request_headers import (
    MOST_HEADERS,
    SECRETS,
    CarriedHeader,
    carried_headers,
)

logger = logging.getLogger("vllm.omni_metrics")

Warn = Callable[[str], None]
Exposition = Literal["plugin", "engine"]

PREFIX = "VLLM_OMNI_METRICS"
BUCKETS_PREFIX = f"{PREFIX}_BUCKETS_"

#: Of the hook plugins, all that are installed.
_EVERY = "*"
_MOST_PLAYERS = 3
#: Seconds.
_LONGEST_BUFFER = 60
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True)
class Variable:
    """One documented environment variable; ``name`` may end in a ``<PLACEHOLDER>``."""

    name: str
    default: str
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        PREFIX,
        "off",
        "`1`, `true`, `yes` or `on` switches the plugin on; unset, `0`, `false`, `no` or `off` "
        "leaves the engine untouched.",
    ),
    Variable(
        f"{PREFIX}_HOOKS",
        "all",
        "Comma-separated names of the installed hook plugins to load (entry point group "
        "`vllm_omni_metrics_plugin.hooks`), and paths of files that are one "
        "(`./late_starts.py`); nothing else is loaded then, unless `*`, all that are installed, is "
        "among them. `-name` blocks one and keeps the others. Set but empty: none. What is built "
        "in is loaded unless `-prometheus`, `-objectives`, `-traces` or `-otlp_metrics` blocks it.",
    ),
    Variable(
        f"{PREFIX}_NATIVE",
        "on",
        "`0` leaves the families that vLLM-Omni publishes itself (`vllm_omni:*`) out of "
        "`/metrics`; not with several API servers.",
    ),
    Variable(
        f"{PREFIX}_EXPOSITION",
        "plugin",
        "`plugin` answers for `/metrics` off the event loop, as text or OpenMetrics; `engine` "
        "leaves that to vLLM.",
    ),
    Variable(
        f"{PREFIX}_PORT",
        "none",
        "A port of its own for `/metrics`, beside the API's: for a Prometheus that does not reach "
        "that one.",
    ),
    Variable(
        f"{PREFIX}_PLAYERS",
        "0,0.2",
        "The players whose silences are counted, by the seconds of audio that each buffers: one to "
        "three numbers, comma-separated. The first decides how a stream ended.",
    ),
    Variable(
        f"{PREFIX}_SLO",
        "none",
        "TOML file with the objectives that requests are judged by. The limits in it become bucket "
        "bounds of their families.",
    ),
    Variable(
        f"{PREFIX}_TRACES",
        "off",
        "`1` sends a trace of each sampled request over OTLP. OpenTelemetry's own variables say "
        "where to, and which are sampled: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, "
        "`OTEL_TRACES_SAMPLER_ARG` and others.",
    ),
    Variable(
        f"{PREFIX}_OTLP_METRICS",
        "off",
        "`1` sends metrics over OTLP as well, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says.",
    ),
    Variable(
        f"{PREFIX}_HEADERS",
        "none",
        "Headers of the client's request that `RequestArrived` and `RequestFinished` carry: one to "
        f"{MOST_HEADERS} names, comma-separated. `name:hash` carries 16 hexadecimal digits of the "
        "value's SHA-256 instead. "
        + ", ".join(f"`{name}`" for name in sorted(SECRETS))
        + " are only ever carried so; of `authorization`, the key's, without `Bearer`.",
    ),
    Variable(
        f"{PREFIX}_HEADERS_SALT",
        "none",
        "A secret that the hashes of headers are keyed by (HMAC-SHA-256), so that nobody who sees "
        "them can try keys against them.",
    ),
    Variable(
        f"{PREFIX}_TRACE",
        "off",
        "`1` logs every call of a hook plugin, with its event and the time it took.",
    ),
    Variable(
        f"{PREFIX}_CHANNEL",
        "a private socket",
        "Where stage engines that run apart from the server (headless replicas) send their events: "
        "`ipc:///path` for the same host, `tcp://host:port` for others, which needs a key. "
        "The same on the server, which listens there, and on every other host.",
    ),
    Variable(
        f"{PREFIX}_CHANNEL_KEY",
        "none",
        "File with the secret CURVE key that everybody on a `tcp://` channel shares, as "
        "`zmq.auth.create_certificates` writes it (`*.key_secret`).",
    ),
    Variable(
        f"{BUCKETS_PREFIX}<FAMILY>",
        "the catalogue's",
        "Bucket bounds of one histogram, comma-separated and rising, e.g. "
        f"`{BUCKETS_PREFIX}AUDIO_RTF=0.25,0.5,1,2`. `+Inf` is added.",
    ),
)


@dataclass(frozen=True)
class Settings:
    """What the operator asked for, after validation."""

    enabled: bool = False
    #: Hook plugins to load by entry point name; None means every one that is installed.
    hooks_allowed: frozenset[str] | None = None
    #: Hook plugins to load beside them, by the paths of their files or folders.
    hook_files: tuple[str, ...] = ()
    #: Hook plugins that are never loaded; wins over :attr:`hooks_allowed`.
    hooks_blocked: frozenset[str] = frozenset()
    #: Where events of other processes arrive, if the operator says it; else a private socket.
    channel: str | None = None
    #: File with the key of a ``tcp://`` channel.
    channel_key: str | None = None
    #: Show the families that the engine publishes itself.
    native: bool = True
    #: Who answers for ``/metrics`` on the API's port.
    exposition: Exposition = "plugin"
    #: Where ``/metrics`` is shown besides.
    port: int | None = None
    #: The players of streamed audio, by the seconds that they buffer.
    players: tuple[float, ...] = PLAYERS
    #: File with the objectives that requests are judged by.
    slo: str | None = None
    #: Send traces of requests, and metrics, over OTLP.
    traces: bool = False
    otlp_metrics: bool = False
    #: Headers of the client's request that events carry.
    headers: tuple[CarriedHeader, ...] = ()
    #: What the hashes of headers are keyed by; hook plugins see the settings, and this in no log.
    headers_salt: str = field(default="", repr=False)
    #: Log every call of a hook plugin.
    trace: bool = False
    #: Bucket bounds that replace the catalogue's, by family stem.
    buckets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def allows_hooks_of(self, plugin: str) -> bool:
        """Whether the installed hook plugin of this name is to be loaded."""
        if plugin in self.hooks_blocked:
            return False
        return self.hooks_allowed is None or plugin in self.hooks_allowed


def parse(environ: Mapping[str, str], warn: Warn = logger.warning) -> Settings:
    """Read every ``VLLM_OMNI_METRICS*`` variable of ``environ``; never raises on a bad value."""
    allowed, files, blocked = _hook_plugins(environ.get(f"{PREFIX}_HOOKS"))
    channel, channel_key = _channel(environ, warn)
    return Settings(
        enabled=_switch(PREFIX, environ.get(PREFIX), warn),
        hooks_allowed=allowed,
        hook_files=files,
        hooks_blocked=blocked,
        channel=channel,
        channel_key=channel_key,
        native=_switch(f"{PREFIX}_NATIVE", environ.get(f"{PREFIX}_NATIVE"), warn, default=True),
        exposition=_exposition(environ.get(f"{PREFIX}_EXPOSITION"), warn),
        port=_port(environ.get(f"{PREFIX}_PORT"), warn),
        players=_players(environ.get(f"{PREFIX}_PLAYERS"), warn),
        slo=environ.get(f"{PREFIX}_SLO") or None,
        traces=_switch(f"{PREFIX}_TRACES", environ.get(f"{PREFIX}_TRACES"), warn),
        otlp_metrics=_switch(f"{PREFIX}_OTLP_METRICS", environ.get(f"{PREFIX}_OTLP_METRICS"), warn),
        headers=carried_headers(f"{PREFIX}_HEADERS", environ, warn),
        headers_salt=environ.get(f"{PREFIX}_HEADERS_SALT", ""),
        trace=_switch(f"{PREFIX}_TRACE", environ.get(f"{PREFIX}_TRACE"), warn),
        buckets=_all_buckets(environ, warn),
    )


def _switch(name: str, value: str | None, warn: Warn, *, default: bool = False) -> bool:
    word = (value or "").strip().lower()
    if word in _TRUE:
        return True
    if word not in _FALSE:
        usual = "on" if default else "off"
        warn(
            f"{name}={value!r} is neither on (1, true, yes, on) nor off; the default, {usual}, is "
            "used"
        )
        return default
    return default if word == "" else False


def _exposition(value: str | None, warn: Warn) -> Exposition:
    word = (value or "").strip().lower()
    if word == "engine":
        return "engine"
    if word not in ("plugin", ""):
        name = f"{PREFIX}_EXPOSITION"
        warn(f"{name}={value!r} is neither plugin nor engine; the default, plugin, is used")
    return "plugin"


def _port(value: str | None, warn: Warn) -> int | None:
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,5}", value.strip()) and 0 < int(value) <= 65535:
        return int(value)
    warn(
        f"{PREFIX}_PORT={value!r} is not a port between 1 and 65535; /metrics is shown on the "
        "API's port alone"
    )
    return None


def _players(value: str | None, warn: Warn) -> tuple[float, ...]:
    if not value:
        return PLAYERS
    players = tuple(dict.fromkeys(_numbers(value)))
    if 0 < len(players) <= _MOST_PLAYERS and all(0 <= p <= _LONGEST_BUFFER for p in players):
        return players
    default = ",".join(f"{buffer:g}" for buffer in PLAYERS)
    warn(
        f"{PREFIX}_PLAYERS={value!r} is not one to {_MOST_PLAYERS} numbers of seconds from 0 to "
        f"{_LONGEST_BUFFER}; the default is used: {default}"
    )
    return PLAYERS


def _hook_plugins(
    value: str | None,
) -> tuple[frozenset[str] | None, tuple[str, ...], frozenset[str]]:
    """The installed ones that are named, or None for all; the files; those that are blocked."""
    if value is None:
        return None, (), frozenset()
    named = [name.strip() for name in value.split(",") if name.strip()]
    blocked = frozenset(name[1:].strip() for name in named if name.startswith("-"))
    chosen = [name for name in named if not name.startswith("-")]
    files = tuple(dict.fromkeys(filter(_is_path, chosen)))
    allowed = frozenset(chosen).difference(files)
    if _EVERY in allowed or (blocked and not chosen):
        return None, files, blocked
    return allowed, files, blocked


def _is_path(name: str) -> bool:
    return "/" in name or name.startswith("~") or name.endswith(".py") or ".py:" in name


def _channel(environ: Mapping[str, str], warn: Warn) -> tuple[str | None, str | None]:
    name, key_name = f"{PREFIX}_CHANNEL", f"{PREFIX}_CHANNEL_KEY"
    address, key = environ.get(name), environ.get(key_name)
    if not address:
        if key:
            warn(f"{key_name}={key!r} is of no use without {name} and was ignored")
        return None, None
    instead = "events of this process's own stage engines still arrive by a private socket"
    if not re.fullmatch(r"ipc:///.{1,99}|tcp://[^/]+:\d{1,5}", address):
        warn(f"{name}={address!r} is neither ipc:///path nor tcp://host:port; {instead}")
        return None, None
    if address.startswith("tcp:") and not 0 < int(address.rpartition(":")[2]) <= 65535:
        warn(f"{name}={address!r} has no port between 1 and 65535; {instead}")
        return None, None
    if address.startswith("ipc:"):
        return address, None
    if not key or not os.access(key, os.R_OK):
        problem = "is not a file that can be read" if key else "is not set"
        warn(f"{name}={address!r} was ignored because {key_name}={key!r} {problem}; {instead}")
        return None, None
    if os.stat(key).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(
            f"{key_name}={key!r} can be opened by others than its owner, who can then send events "
            "too; make it private with chmod 600"
        )
    return address, key


def _all_buckets(environ: Mapping[str, str], warn: Warn) -> dict[str, tuple[float, ...]]:
    histograms = {f.stem: f for f in catalog.FAMILIES if f.kind == "histogram"}
    known = {variable.name for variable in VARIABLES}
    chosen: dict[str, tuple[float, ...]] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in known:
            continue
        stem = name[len(BUCKETS_PREFIX) :].lower()
        if not name.startswith(BUCKETS_PREFIX) or stem not in histograms:
            warn(f"{name}={value!r} is not a variable of this plugin and was ignored{_near(name)}")
            continue
        bounds = _bounds(value)
        if bounds is None:
            default = ",".join(f"{b:g}" for b in histograms[stem].buckets)
            warn(
                f"{name}={value!r} is not a rising list of numbers; the default is used: {default}"
            )
        else:
            chosen[stem] = bounds
    return chosen


def _numbers(value: str) -> tuple[float, ...]:
    """Those of a comma-separated list; none if anything else is in it."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        return ()


def _bounds(value: str) -> tuple[float, ...] | None:
    bounds = _numbers(value)
    if bounds and bounds[-1] == math.inf:
        bounds = bounds[:-1]
    if not bounds or not all(map(math.isfinite, bounds)):
        return None
    if any(low >= high for low, high in pairwise(bounds)):
        return None
    return bounds


def _near(name: str) -> str:
    names = [v.name for v in VARIABLES if "<" not in v.name]
    names += [BUCKETS_PREFIX + f.stem.upper() for f in catalog.FAMILIES if f.kind == "histogram"]
    close = [known for known in names if known.startswith(f"{name}_")]
    close = close or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
