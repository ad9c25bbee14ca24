"""What the plugin costs an image server."""

from __future__ import annotations

from testbed.bench import Figure, servers
from testbed.clients import visual


def figures() -> list[Figure]:
    return servers.figures("image", _ask, cpu="image_cpu")


def _ask(url: str) -> dict[str, float]:
    answer = visual.images(url, size="128x128", steps=10)
    assert answer.status == 200, answer
    return {"image": answer.total_seconds}
