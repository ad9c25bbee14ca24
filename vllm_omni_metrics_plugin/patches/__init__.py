"""Everything that touches the engine: applying the seams of the table, reporting and reverting.

Only this package imports engine modules or knows an engine's version.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterable

from vllm_omni_metrics_plugin.hooks import PatchReported
from vllm_omni_metrics_plugin.hooks.events import PatchStatus
from vllm_omni_metrics_plugin.patches.seams.post_import import PostImports
from vllm_omni_metrics_plugin.patches.seams.seam import AppliedSeam, Seam, SeamMismatchError, apply
from vllm_omni_metrics_plugin.patches.state import EngineState

logger = logging.getLogger("vllm.omni_metrics")


class Patches:
    """The seams of this process and what became of them."""

    def __init__(self, seams: Iterable[Seam], state: EngineState) -> None:
        self._seams = tuple(seams)
        self._state = state
        self._late_imports = PostImports()
        self._applied: dict[str, AppliedSeam] = {}

    def install(self) -> None:
        """Apply every seam whose module is imported, and the others as soon as theirs is."""
        for seam in self._seams:
            if seam.module in sys.modules:
                self._apply(seam)
            else:
                self._report(seam, "deferred", "module not imported yet")
                apply_later = functools.partial(self._apply, seam)
                self._late_imports.wait_for(seam.module, apply_later)

    def revert(self) -> list[str]:
        """Undo what :meth:`install` did; names the seams that somebody else has wrapped since.

        Our wrappers of those stay in the engine and pass every call on.
        """
        self._late_imports.stop()
        kept = [name for name, applied in self._applied.items() if not applied.revert()]
        self._applied = {name: self._applied[name] for name in kept}
        return kept

    def _apply(self, seam: Seam) -> None:
        try:
            applied = apply(seam, self._state)
        except SeamMismatchError as why:
            logger.warning(
                "omni-metrics: skipped the patch %s: this engine has %s at %s; no samples for %s",
                seam.name,
                why,
                seam.target,
                ", ".join(seam.families),
            )
            self._report(seam, "skipped", str(why))
        except Exception as error:
            logger.exception("omni-metrics: could not wrap %s", seam.target)
            self._report(seam, "failed", type(error).__name__)
        else:
            if applied is not None:
                self._applied[seam.name] = applied
            self._report(seam, "applied", "")

    def _report(self, seam: Seam, status: PatchStatus, reason: str) -> None:
        self._state.hooks.omni_patch_reported(
            PatchReported(name=seam.name, target=seam.target, status=status, reason=reason)
        )
