"""What the plugin costs a speech server."""

from __future__ import annotations

from testbed.bench import Figure, servers
from testbed.clients import audio


def figures() -> list[Figure]:
    return servers.figures("tts", ask, cpu="serve_cpu")


def ask(url: str) -> dict[str, float]:
    """One stream, and its times."""
    answer = audio.speech(url, tokens=40, stream="audio", seed=7)
    assert answer.first_audio_seconds is not None, answer
    return {"serve": answer.total_seconds, "first_packet": answer.first_audio_seconds}
