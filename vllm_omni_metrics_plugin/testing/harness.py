"""A server's hooks without the server, and a hook plugin that keeps what it is called with."""

from __future__ import annotations

from typing import TypeVar

from vllm_omni_metrics_plugin.hooks import Event, HookRegistry, Hooks, hookimpl, renamed
from vllm_omni_metrics_plugin.testing.events import EVENTS, AnyEvent

AnyPlugin = TypeVar("AnyPlugin")

_HOOKS = {kind: name for name, kind in EVENTS.items()}


class Recorder:
    """A hook plugin that implements every hook and keeps the events in order.

    ::

        recorder = omni_hooks.register(Recorder())
        omni_hooks.fire(*speech_request(packets=3))
        assert len(recorder.of(MediaPacket)) == 3
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, kind: type[AnyEvent]) -> list[AnyEvent]:
        """The events of this kind, in the order in which they came."""
        return [event for event in self.events if isinstance(event, kind)]

    def only(self, kind: type[AnyEvent]) -> AnyEvent:
        """The one event of this kind; raises AssertionError if there is not exactly one."""
        found = self.of(kind)
        assert len(found) == 1, f"one {kind.__name__} expected among {self.events}"
        return found[0]

    def clear(self) -> None:
        self.events.clear()


def _record(self: Recorder, event: Event) -> None:
    self.events.append(event)


for _hook in EVENTS:
    setattr(Recorder, _hook, hookimpl(_record))


class HookHarness:
    """A server's hooks without the server: what is registered here is called with what fires here.

    ``hooks`` has the hooks to call, as code takes them that is given its hooks; ``registry`` is
    what they belong to, apart from the process's own. Use it as a context manager where there is no
    pytest; leaving it unregisters everything::

        with HookHarness() as harness:
            mine = harness.register(MyPlugin())
            harness.fire(make_event(RequestFinished, outcome="abort"))
    """

    def __init__(self) -> None:
        self._raised: list[BaseException] = []
        self.registry = HookRegistry(on_error=self._raised.append)
        self._names: list[str] = []

    @property
    def hooks(self) -> Hooks:
        """The hooks of :attr:`registry`: one attribute for each, of the hook's name."""
        return self.registry.hooks

    @property
    def manager(self) -> HookRegistry:
        """The earlier name of :attr:`registry`."""
        renamed.warn("HookHarness.manager", "HookHarness.registry", above=1)
        return self.registry

    def __enter__(self) -> HookHarness:
        return self

    def __exit__(self, *_: object) -> None:
        while self._names:
            self.registry.unregister(self._names.pop())

    def register(self, plugin: AnyPlugin, name: str | None = None) -> AnyPlugin:
        """Register a plugin as the server would, and return it; raises ValueError for a misfit.

        A plugin that comes after events of historic hooks is called with them now.
        """
        self._names.append(self.registry.register(plugin, name))
        self._raise()
        return plugin

    def fire(self, *fired: Event, seconds: float = 30.0) -> None:
        """Fire each event on its hook and wait until slow implementations were called, too.

        Raises the first thing that a plugin raised, which a server would have contained and
        counted, and TimeoutError for a slow one that takes longer than ``seconds``.
        """
        for event in fired:
            getattr(self.hooks, _HOOKS[type(event)])(event)
        finished = self.registry.flush(seconds)
        self._raise()
        if not finished:
            raise TimeoutError(f"slow implementations are not done after {seconds:.0f} s")

    def _raise(self) -> None:
        if self._raised:
            first = self._raised[0]
            self._raised.clear()
            raise first
