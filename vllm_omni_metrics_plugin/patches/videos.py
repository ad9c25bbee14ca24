"""The endpoints for videos, which alone know at what frame rate they encode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import faults
from vllm_omni_metrics_plugin.generations import encoding


def wrap_run_and_extract(original: Callable[..., Any]) -> Callable[..., Any]:
    """``OmniOpenAIServingVideo._run_and_extract``: what is encoded, and at which rate.

    Behind ``/v1/videos`` and ``/v1/videos/sync``. When it raises, there is no video.
    """

    @functools.wraps(original)
    async def _run_and_extract(self: Any, *args: Any, **keywords: Any) -> Any:
        with encoding() as endpoint:
            artifacts = await original(self, *args, **keywords)
        try:
            rate = artifacts.output_fps
            endpoint.encodes_at(float(rate) if rate and rate > 0 else None)
        except Exception:
            faults.contain("the end of a video")
        return artifacts

    return _run_and_extract
