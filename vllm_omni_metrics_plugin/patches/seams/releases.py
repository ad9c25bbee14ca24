"""The engine's releases that the plugin knows, and what each of them cannot give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Release:
    """A release of vllm-omni, and of the vLLM that it runs on."""

    version: str
    vllm: str
    #: How much of it the tests run: a server with clients, or the patches on its real sources.
    tested: Literal["end to end", "patches"]
    #: By stem of a family of the catalogue, why this release gives it no samples.
    unavailable: Mapping[str, str] = field(default_factory=dict)
    #: Expression for the names of the families that its vLLM takes from the registry, whosever they
    #: are, when it builds a stat logger.
    unregistered: str = "^vllm:"


#: In 0.22 there are no sessions of speech in and out at once; from then to 0.28 they are an
#: experiment beside the engine, and another one in each release.
_SESSIONS = (
    *("sessions", "sessions_closed_total", "sessions_refused_total", "session_duration_seconds"),
    *("turns_total", "turns_unheard_total", "turn_audio_samples_total"),
    *("turn_latency_seconds", "turn_heard_latency_seconds", "turn_endpoint_delay_seconds"),
    "barge_in_reaction_seconds",
    *("voice_detection_sessions", "voice_detection_inference_seconds"),
    "voice_detection_errors_total",
)
_NO_SESSIONS = dict.fromkeys(_SESSIONS, "the engine has no sessions of speech in and out at once")
_OTHER_SESSIONS = dict.fromkeys(
    _SESSIONS, "its sessions of speech in and out at once are an experiment beside the engine"
)

RELEASES: tuple[Release, ...] = (
    Release("0.22.0", "0.22.1", "patches", _NO_SESSIONS, unregistered="vllm"),
    Release("0.24.0", "0.24.0", "patches", _OTHER_SESSIONS),
    Release("0.26.0", "0.26.0", "patches", _OTHER_SESSIONS),
    Release("0.28.0", "0.28.0", "end to end", _OTHER_SESSIONS),
    Release("0.30.0", "0.30.0", "end to end"),
)

BY_VERSION: Mapping[str, Release] = {release.version: release for release in RELEASES}


def number(version: str) -> tuple[int, ...]:
    """For comparing releases: what is built on the way to one counts as that one."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
