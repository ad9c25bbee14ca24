"""What each hook plugin did with each hook: how often it was called, and with what success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from vllm_omni_metrics_plugin.hooks.listener import Listener


class HookStats(NamedTuple):
    """What one plugin's implementations of one hook did since the process began."""

    plugin: str
    hook: str
    #: Events that it was called with, or will be when its queue has come to them.
    calls: int
    #: Exceptions, attempts to call the hook from inside, coroutines that nobody awaits.
    errors: int
    #: Events that its queue had no room for.
    dropped: int
    #: False once it is switched off or unregistered.
    is_on: bool


class Totals:
    """Sums over implementations, by plugin and hook."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def copy(self) -> Totals:
        made = Totals()
        made._counts = {key: Counter(counts) for key, counts in self._counts.items()}
        return made

    def clear(self) -> None:
        self._counts.clear()

    def add(self, listeners: Iterable[Listener], *, registered: bool) -> None:
        """Add the counts of ``listeners``; those that are not registered count as off."""
        for listener in listeners:
            counts = self._counts.setdefault((listener.plugin, listener.hook), Counter())
            counts["calls"] += listener.calls
            counts["errors"] += listener.errors
            counts["dropped"] += listener.dropped
            counts["on"] += registered and listener.is_on

    def stats(self) -> list[HookStats]:
        return [
            HookStats(*key, counts["calls"], counts["errors"], counts["dropped"], counts["on"] > 0)
            for key, counts in self._counts.items()
        ]
