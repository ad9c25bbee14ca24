"""Being called back when a module that is not imported yet has been.

Nothing is imported by us: which modules a process loads, and in which order, stays the engine's.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from vllm_omni_metrics_plugin import faults

Callback = Callable[[], None]


class _CallingLoader(Loader):
    """Does what another loader does, then calls back."""

    def __init__(self, inner: Loader, callbacks: list[Callback]) -> None:
        self._inner = inner
        self._callbacks = callbacks

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What the module sees of its own loader is what it would see without us.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                faults.contain("a post-import step")


class LateImports(MetaPathFinder):
    """Stands first in ``sys.meta_path`` while there is a module to wait for."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Callback]] = {}

    def wait_for(self, module: str, callback: Callback) -> None:
        """Call ``callback`` right after ``module`` was imported for the first time."""
        self._waiting.setdefault(module, []).append(callback)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        self._leave_if_done()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        callbacks = self._waiting.pop(fullname, None)  # popped: the search below comes here again
        if callbacks is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self._waiting[fullname] = callbacks
            return None
        self._leave_if_done()
        spec.loader = _CallingLoader(spec.loader, callbacks)
        return spec

    def _leave_if_done(self) -> None:
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
