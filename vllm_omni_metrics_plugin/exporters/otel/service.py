"""Who sends: the resource of all that this process sends."""

from __future__ import annotations

from typing import Any

_NAME = "service.name"
#: How the SDK begins the name of a service that nobody has named.
_UNNAMED = "unknown_service"


def resource() -> Any:
    """As ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` say; ``vllm-omni`` by default."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create()
    if str(found.attributes.get(_NAME, _UNNAMED)).startswith(_UNNAMED):
        return found.merge(Resource({_NAME: "vllm-omni"}))
    return found
