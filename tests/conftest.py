"""What unit and engine tests share: a listener, an exporter of their own, a clean slate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import hypothesis
import pytest
from prometheus_client import CollectorRegistry

from tests.layers import pytest_collection_modifyitems, pytest_pycollect_makemodule  # noqa: F401
from vllm_omni_metrics_plugin import catalog, internal_errors
from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.hooks import HookRegistry, ReplicaJoined
from vllm_omni_metrics_plugin.objectives import Objective
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests.background import Background
from vllm_omni_metrics_plugin.testing import Recorder

# The machine is shared, so how long an example takes says nothing. Fixtures are entered once for
# all examples of a test; the tests that use one clear it for each example.
hypothesis.settings.register_profile(
    "shared_machine",
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("shared_machine")
#: With ``--hypothesis-profile``, as ``make thorough`` has it.
hypothesis.settings.register_profile("thorough", max_examples=10_000)


class Exposed:
    """An exporter that listens, and what a scrape of its registry shows."""

    def __init__(
        self,
        exporter: PrometheusExporter,
        registry: CollectorRegistry,
        hooks: Any,
        held: dict[tuple[str, str, str], int],
        spans_dropped: dict[str, int],
    ) -> None:
        self.exporter = exporter
        self.registry = registry
        self.hooks = hooks
        #: What a guard has counted, by hook plugin, family and label.
        self.held = held
        #: What traces have lost, by reason.
        self.spans_dropped = spans_dropped

    def join(
        self,
        model_name: str = "tiny",
        stage: int = 1,
        replica: int = 0,
        stage_name: str = "voice",
        stage_type: str = "llm",
        makes: tuple[str, ...] = (),
        feeds: tuple[int, ...] = (),
    ) -> None:
        """A replica joins, which publishes the families."""
        self.hooks.omni_replica_joined(
            ReplicaJoined(
                model_name=model_name,
                stage=stage,
                replica=replica,
                stage_name=stage_name,
                stage_type=stage_type,
                makes=makes,
                feeds=feeds,
            )
        )

    def value(self, sample: str, **labels: str) -> float | None:
        """One sample's value; ``sample`` without the families' common prefix."""
        return self.registry.get_sample_value(catalog.PREFIX + sample, labels)

    def missing(self) -> dict[tuple[str, str], float]:
        """What the exporter says could not be measured, by family stem and reason."""
        return {
            (sample.labels["family"].removeprefix(catalog.PREFIX), sample.labels["reason"]): (
                sample.value
            )
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"{catalog.PREFIX}metrics_missing_samples_total" and sample.value
        }


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Log:
    """What the plugin logs, whatever the engine does with its loggers."""

    def __init__(self, handler: _Collecting) -> None:
        self._handler = handler

    @property
    def records(self) -> list[logging.LogRecord]:
        return self._handler.records

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the shell, or the errors that another one made on purpose."""
    monkeypatch.delenv("VLLM_OMNI_METRICS", raising=False)
    monkeypatch.setattr(internal_errors, "errors", internal_errors.InternalErrors())


@pytest.fixture(autouse=True)
def nothing_waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done beside the event loop is done at once, but for modules that test just that."""
    if getattr(request.module, "BESIDE_THE_LOOP", False):
        return

    def put(_: Background, call: Callable[[], object]) -> None:
        with internal_errors.suppressed("working beside the event loop"):
            call()

    monkeypatch.setattr(Background, "put", put)


@pytest.fixture
def registry() -> HookRegistry:
    """Hook plugins of this test alone."""
    return HookRegistry()


@pytest.fixture
def hooks(registry: HookRegistry) -> Any:
    """What the code under test calls."""
    return registry.hooks


@pytest.fixture
def state(hooks: Any) -> EngineState:
    """What the patches of a process share."""
    return EngineState(hooks)


@pytest.fixture
def recorder(registry: HookRegistry) -> Recorder:
    """Keeps every event that this test's hooks are called with."""
    recorder = Recorder()
    registry.register(recorder, "recorder")
    return recorder


@pytest.fixture
def new_recorder() -> type[Recorder]:
    """For registries of a test's own."""
    return Recorder


@pytest.fixture
def expose(registry: HookRegistry) -> Callable[..., AbstractContextManager[Exposed]]:
    """Makes an exporter that is registered for the length of a with block."""

    @contextmanager
    def expose(
        buckets: Mapping[str, tuple[float, ...]] | None = None,
        publish_in: CollectorRegistry | None = None,
        objectives: Sequence[Objective] = (),
    ) -> Iterator[Exposed]:
        publish_in = CollectorRegistry() if publish_in is None else publish_in
        held: dict[tuple[str, str, str], int] = {}
        spans_dropped: dict[str, int] = {}
        exporter = PrometheusExporter(
            buckets or {},
            registry.stats,
            publish_in,
            held=lambda: held,
            spans_dropped=lambda: spans_dropped,
            objectives=objectives,
        )
        # As in a server: a machine that is busy does not have it called on a thread of its own.
        registry.register(exporter, "prometheus", timed=False)
        try:
            yield Exposed(exporter, publish_in, registry.hooks, held, spans_dropped)
        finally:
            registry.unregister(exporter)
            exporter.close()

    return expose


@pytest.fixture
def exposed(expose: Callable[..., AbstractContextManager[Exposed]]) -> Iterator[Exposed]:
    """A Prometheus exporter that publishes into a registry of its own."""
    with expose() as exporter:
        yield exporter


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that the plugin logs during the test."""
    logger = logging.getLogger("vllm.omni_metrics")
    handler = _Collecting()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield Log(handler)
    logger.removeHandler(handler)
    logger.setLevel(level)
