"""Where the engine's application answers for ``/metrics``, behind all of its middleware."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

#: Makes the application that answers for a registry's page, from the one that did so far.
AnswersFor = Callable[[CollectorRegistry, Any], Any]

#: Where the functions are defined that answer for ``/metrics`` and for ``/metrics/``.
_EXACT = "prometheus_fastapi_instrumentator.instrumentation"
_MOUNTED = "prometheus_client.asgi"


def take_over(application: Any, answers_for: AnswersFor) -> None:
    """Have the routes answered that show a registry of prometheus_client; all others stay."""
    for route in application.routes:
        registry = _registry(route)
        if registry is not None:
            route.app = answers_for(registry, route.app)


def _registry(route: Any) -> CollectorRegistry | None:
    """The registry that a route shows; None for another route."""
    endpoint = getattr(route, "endpoint", None)
    if getattr(endpoint, "__module__", None) == _EXACT:
        shown = getattr(_holds(endpoint).get("self"), "registry", None)
    else:
        application = getattr(route, "app", None)
        if getattr(application, "__module__", None) != _MOUNTED:
            return None
        shown = _holds(application).get("registry")
    return shown if isinstance(shown, CollectorRegistry) else None


def _holds(function: Any) -> dict[str, Any]:
    """What a function has of the one that it is defined in."""
    return dict(inspect.getclosurevars(function).nonlocals)
