"""Which routes of an application are taken over, and that the others are not touched."""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, make_asgi_app

from vllm_omni_metrics_plugin.patches import metrics_route
from vllm_omni_metrics_plugin.patches.http import wrap_application
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.settings import Settings
from vllm_omni_metrics_plugin.startup.scrapes import answer_scrapes


class Route:
    """As much of a route of Starlette as there is to see."""

    def __init__(self, app: Any, endpoint: Any = None) -> None:
        self.app = app
        if endpoint is not None:
            self.endpoint = endpoint


class Instrumentator:
    def __init__(self, registry: Any) -> None:
        self.registry = registry

    def expose(self) -> Any:
        def metrics(request: object) -> object:
            return self.registry

        metrics.__module__ = "prometheus_fastapi_instrumentator.instrumentation"
        return metrics


class Application:
    def __init__(self, *routes: Any) -> None:
        self.routes = list(routes)
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)


def ours(registry: CollectorRegistry, otherwise: Any) -> Any:
    return ("ours", registry, otherwise)


def test_both_routes_of_a_registry_are_taken_over() -> None:
    registry = CollectorRegistry()
    exact = Route("exact", Instrumentator(registry).expose())
    below = Route(mounted := make_asgi_app(registry))
    metrics_route.take_over(Application(exact, below), ours)
    assert exact.app == ("ours", registry, "exact")
    assert below.app == ("ours", registry, mounted)


@pytest.mark.parametrize(
    "route",
    [
        Route("another", lambda request: None),
        Route("another", Instrumentator(None).expose()),
        Route("another", Instrumentator("no registry").expose()),
        Route(lambda scope, receive, send: None),
        Route(None),
        object(),
    ],
)
def test_other_routes_stay(route: Any) -> None:
    before = getattr(route, "app", None)
    metrics_route.take_over(Application(route), ours)
    assert getattr(route, "app", None) is before


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch, state: EngineState) -> Application:
    monkeypatch.setattr(Application, "__call__", wrap_application(Application.__call__, state))
    return Application(Route(make_asgi_app(CollectorRegistry())))


def starts(application: Application) -> list[Any]:
    """What of its routes the application has after its server began."""
    asyncio.run(application({"type": "lifespan"}, None, None))
    assert application.scopes == [{"type": "lifespan"}]
    return [route.app for route in application.routes]


def test_routes_are_taken_over_when_the_server_starts(
    application: Application, state: EngineState
) -> None:
    state.answers_for = ours
    [app] = starts(application)
    assert app[0] == "ours"


def test_routes_stay_the_engines_where_it_is_to_answer(application: Application) -> None:
    [app] = starts(application)
    assert not isinstance(app, tuple)


def test_application_without_routes_starts_all_the_same(
    application: Application, state: EngineState, log: Any
) -> None:
    state.answers_for = ours
    del application.routes
    asyncio.run(application({"type": "lifespan"}, None, None))
    assert application.scopes == [{"type": "lifespan"}]
    assert any("taking over /metrics" in message for message in log.messages)


@pytest.mark.parametrize(
    ("settings", "takes_over", "ports"),
    [
        (Settings(), True, 0),
        (Settings(exposition="engine"), False, 0),
        (Settings(port=9400), True, 1),
        (Settings(exposition="engine", port=9400), False, 1),
    ],
)
def test_answers_are_given_where_the_operator_wants_them(
    state: EngineState, settings: Settings, takes_over: bool, ports: int
) -> None:
    answer_scrapes(settings, state)
    assert (state.answers_for is not None) is takes_over
    assert len(state.after_engine) == ports


@pytest.mark.parametrize(("name", "ports"), [("ApiServer_0", 1), ("ApiServer_1", 0)])
def test_port_belongs_to_the_first_of_several_servers(
    state: EngineState, monkeypatch: pytest.MonkeyPatch, name: str, ports: int
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "name", name)
    answer_scrapes(Settings(port=9400), state)
    assert len(state.after_engine) == ports
