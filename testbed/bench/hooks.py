"""What calling hook implementations costs, beside the calls that people compare it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pluggy
from prometheus_client import CollectorRegistry, Histogram

from vllm_omni_metrics_plugin.exporters.prometheus import PrometheusExporter
from vllm_omni_metrics_plugin.hooks import HookRegistry, MediaPacket, ReplicaJoined, hookimpl, specs

SideBySide = Callable[[Callable[[], object], Callable[[], object]], tuple[float, float]]
Figure = tuple[str, float, str, str]

_PACKET = MediaPacket(
    request_id="speech-0123456789abcdef-01234567",
    model_name="model",
    modality="audio",
    index=3,
    samples=7680,
    sample_rate=24000,
    stage=1,
    replica=0,
    left_at=1.0,
    since_arrival_seconds=0.25,
    streamed=True,
)


class Nothing:
    """The smallest hook plugin there is."""

    @hookimpl
    def omni_media_packet(self, event: MediaPacket) -> None:
        pass


def figures(side_by_side: SideBySide) -> Iterator[Figure]:
    """Name, value, budget and what was measured, of each."""
    yield from _nobody_and_the_exporter(side_by_side)
    for count in (0, 1, 3):
        yield from _implementations(side_by_side, count)


def _nobody_and_the_exporter(side_by_side: SideBySide) -> Iterator[Figure]:
    hooks = HookRegistry()
    packet = hooks.hooks.omni_media_packet

    def emit() -> None:
        if packet.listeners:
            packet(
                MediaPacket(
                    request_id="speech-0123456789abcdef-01234567",
                    model_name="model",
                    modality="audio",
                    index=3,
                    samples=7680,
                    sample_rate=24000,
                    stage=1,
                    replica=0,
                    left_at=1.0,
                    since_arrival_seconds=0.25,
                    streamed=True,
                )
            )

    def nothing() -> None:
        pass

    registry = CollectorRegistry()
    histogram = Histogram(
        "bare_seconds", "-", ["model_name", "stage", "replica"], registry=registry
    )
    bare = histogram.labels("model", "1", "0")

    def observe() -> None:
        bare.observe(0.25)

    idle, call = side_by_side(emit, nothing)
    yield "dispatch_idle_ns", 1e9 * (idle - call), "< 100", "nobody listens, less the call"

    exporter = PrometheusExporter({}, list, registry)
    hooks.register(exporter, "prometheus", timed=False)
    hooks.hooks.omni_replica_joined(
        ReplicaJoined(model_name="model", stage=1, replica=0, stage_name="-", stage_type="llm")
    )
    one, alone = side_by_side(emit, observe)
    yield "dispatch_one_vs_observe", one / alone, "<= 1.5", "event built and exported"
    exporter.close()


def _implementations(side_by_side: SideBySide, count: int) -> Iterator[Figure]:
    """Implementations that do nothing, called by us, by nobody in between, and by pluggy."""
    hooks = HookRegistry()
    theirs = pluggy.PluginManager(specs.PROJECT)
    theirs.add_hookspecs(specs)
    plugins = [Nothing() for _ in range(count)]
    for plugin in plugins:
        hooks.register(plugin)
        theirs.register(plugin)
    hook = hooks.hooks.omni_media_packet
    pluggys_hook = theirs.hook.omni_media_packet
    functions = [plugin.omni_media_packet for plugin in plugins]

    def dispatched() -> None:
        if hook.listeners:
            hook(_PACKET)

    def called() -> None:
        for function in functions:
            function(_PACKET)

    def called_by_pluggy() -> None:
        pluggys_hook(event=_PACKET)

    ours, plain = side_by_side(dispatched, called)
    text = f"{count} of no use: {1e9 * ours:.0f} ns against {1e9 * plain:.0f} ns"
    yield f"dispatch_{count}_vs_call", ours / plain, "", f"{text} of plain calls"
    ours, pluggys = side_by_side(dispatched, called_by_pluggy)
    text = f"{count} of no use: {1e9 * ours:.0f} ns against {1e9 * pluggys:.0f} ns"
    yield f"dispatch_{count}_vs_pluggy", ours / pluggys, "", f"{text} of pluggy's"
