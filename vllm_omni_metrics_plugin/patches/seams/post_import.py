"""Being called back when a module that is not imported yet has been.

Nothing is imported by us: which modules a process loads, and in which order, stays the engine's.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from vllm_omni_metrics_plugin import internal_errors

Callback = Callable[[], None]


class _CallingLoader(Loader):
    """Does what another loader does, then calls back."""

    def __init__(self, inner: Loader, imported: Callback) -> None:
        self._inner = inner
        self._imported = imported

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What the module sees of its own loader is what it would see without us.
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._inner.exec_module(module)
        self._imported()


class PostImports(MetaPathFinder):
    """Stands first in ``sys.meta_path`` while there is a module to wait for."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Callback]] = {}
        self._searching: set[str] = set()

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
        if fullname not in self._waiting or fullname in self._searching:
            return None
        self._searching.add(fullname)  # the search below comes here again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is None or spec.loader is None:
            return None
        imported = functools.partial(self._imported, fullname)
        spec.loader = _CallingLoader(spec.loader, imported)
        return spec

    def _imported(self, module: str) -> None:
        for callback in self._waiting.pop(module, ()):
            with internal_errors.suppressed("a post-import step"):
                callback()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
