"""The engine's own bench client, ``vllm-omni bench serve --omni``, against a server of ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.server import Server, binary

#: What the bench saves for each completed request besides its totals.
METRICS = "e2el,audio_ttfp,audio_rtf,audio_duration,audio_underrun"

_SPEECH = ("openai-audio-speech", "/v1/audio/speech")
_CHAT = ("openai-chat-omni", "/v1/chat/completions")
_TIMEOUT_SECONDS = 900.0


class BenchFailedError(Exception):
    """The bench client did not come to its end; the message has its output."""


def speech(server: Server, result: Path, *, prompts: int, tokens: int, at_once: int = 1) -> None:
    """Have each of ``prompts`` random texts spoken, ``tokens`` codec tokens long at most."""
    body = {"voice": "vivian", "language": "English", "max_new_tokens": tokens}
    _serve(server, result, *_SPEECH, body, prompts, tokens, at_once)


def chat(server: Server, result: Path, *, prompts: int, tokens: int, at_once: int = 1) -> None:
    """Have ``prompts`` random texts answered in text, ``tokens`` long, and audio."""
    body = {"modalities": ["text", "audio"]}
    _serve(server, result, *_CHAT, body, prompts, tokens, at_once)


def _serve(
    server: Server,
    result: Path,
    backend: str,
    endpoint: str,
    body: Mapping[str, Any],
    prompts: int,
    tokens: int,
    at_once: int,
) -> None:
    """Write ``result``, with the plugin in the bench; raises :class:`BenchFailedError`."""
    command = [binary("vllm-omni"), "bench", "serve", "--omni", "--disable-tqdm", "--save-result"]
    options = {
        "backend": backend,
        "endpoint": endpoint,
        "base-url": server.url,
        "model": str(server.pipeline.model),
        "served-model-name": server.model,
        "dataset-name": "random",
        "random-input-len": "12",
        "random-output-len": str(tokens),
        "num-prompts": str(prompts),
        "max-concurrency": str(at_once),
        "percentile-metrics": METRICS,
        "metric-percentiles": "50,99",
        "extra-body": json.dumps(body),
        "result-dir": str(result.parent),
        "result-filename": result.name,
    }
    for name, value in options.items():
        command += [f"--{name}", value]
    ended = subprocess.run(
        command,
        env={**server.environment, "VLLM_OMNI_METRICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
    )
    if ended.returncode or not result.exists():
        raise BenchFailedError(f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}")
