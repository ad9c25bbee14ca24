"""What the engine of this environment does in its own way, where a test has to know.

Tests ask ``engine_has("...")``; how it came to be so in which release is said here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

RELEASE = version("vllm-omni")


@dataclass(frozen=True)
class Trait:
    """Something that the engine has in some of the releases that run end to end."""

    releases: frozenset[str]
    #: What the others do instead, and where in the engine that is.
    otherwise: str


TRAITS: Mapping[str, Trait] = {
    "speech that fails is answered with 500": Trait(
        frozenset({"0.30.0"}),
        "OmniOpenAIServingSpeech.create_speech answers 400 to every exception that it does not "
        "know, a prompt that is too long among them",
    ),
    "requests of single sentences": Trait(
        frozenset({"0.30.0"}),
        "StreamingSpeechSessionConfig has no split_granularity: the input is one request",
    ),
    "several API servers": Trait(
        frozenset({"0.30.0"}),
        "OmniServeCommand.validate refuses --api-server-count under --omni",
    ),
    "sessions of speech in and out at once": Trait(
        frozenset({"0.30.0"}),
        "vllm_omni.experimental.fullduplex has them, for models that the test bed has not",
    ),
    "pipelines of a writer and a painter": Trait(
        frozenset({"0.30.0"}),
        "what the test bed's CPU platform adds to BAGEL and registers of its own is 0.30's",
    ),
}


def engine_has(trait: str) -> bool:
    """Raises KeyError for what the table does not know."""
    return RELEASE in TRAITS[trait].releases
