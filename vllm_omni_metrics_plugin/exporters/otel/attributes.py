"""What spans and measurements say of a request, by the names that both have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Attributes = Mapping[str, Any]

#: By what is in a response, the kind that says most of it first: the word of the conventions.
OUTPUT_TYPES = {"video": "video", "image": "image", "audio": "speech", "text": "text"}


def about(model_name: str) -> dict[str, Any]:
    """What is true of each request of a model."""
    return {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": model_name,
        "gen_ai.response.model": model_name,
    }


def at_stage(stage: int, replica: int | None, name: str | None) -> dict[str, Any]:
    """Where something happened; ``name`` is the pipeline's own word for the stage."""
    found: dict[str, Any] = {"vllm_omni.stage.id": stage}
    if name is not None:
        found["vllm_omni.stage.name"] = name
    if replica is not None:
        found["vllm_omni.stage.replica_id"] = replica
    return found


def ended(outcome: str, failure: str | None) -> dict[str, Any]:
    """How a request ended; ``error.type`` only where it did not run to its natural end."""
    found: dict[str, Any] = {"vllm_omni.outcome": outcome}
    if failure is not None:
        found["error.type"] = failure
    return found
