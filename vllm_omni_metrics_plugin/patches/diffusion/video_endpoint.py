"""The endpoints for videos: the frame rate, which they alone know, and the jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches import http
from vllm_omni_metrics_plugin.requests.encoding import encoding

#: Answers at once with the number of a job, which begins before or after the response has ended.
_ORDER = "/v1/videos"


def wrap_run_and_extract(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniOpenAIServingVideo._run_and_extract``: what is encoded, and at which rate.

    Behind ``/v1/videos`` and ``/v1/videos/sync``. When it raises, there is no video.
    """

    @functools.wraps(original)
    async def _run_and_extract(self: Any, *args: Any, **kwargs: Any) -> Any:
        with encoding() as endpoint:
            artifacts = await original(self, *args, **kwargs)
        with internal_errors.suppressed("the end of a video"):
            rate = artifacts.output_fps
            endpoint.encodes_at(float(rate) if rate and rate > 0 else None)
        return artifacts

    return _run_and_extract


def wrap_generate_bytes(original: Callable[..., Any], _: object) -> Callable[..., Any]:
    """``OmniOpenAIServingVideo.generate_video_bytes``: one video, for its client or as a job."""

    @functools.wraps(original)
    async def generate_video_bytes(self: Any, *args: Any, **kwargs: Any) -> Any:
        answering = http.answering()
        if answering is not None and answering.route != _ORDER:
            return await original(self, *args, **kwargs)
        with http.job():
            return await original(self, *args, **kwargs)

    return generate_video_bytes
