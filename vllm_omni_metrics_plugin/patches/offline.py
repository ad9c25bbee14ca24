"""The engine without a server: ``Omni.generate`` in somebody's own script.

A batch of prompts is one call; each of its prompts is a request with a life of its own.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches.outputs import Asked
from vllm_omni_metrics_plugin.patches.replicas import introduce
from vllm_omni_metrics_plugin.patches.seams.arguments import reading
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.requests import OpenRequests


class Batch:
    """The requests of one call of ``generate`` that have not ended."""

    __slots__ = ("_open", "model_name", "requests")

    def __init__(self, open_requests: OpenRequests, model_name: str) -> None:
        self._open = open_requests
        self.model_name = model_name
        self.requests: dict[str, Asked] = {}

    def begin(self, request_id: str, prompt: Any, sampling_params_list: Any) -> None:
        request = self._open.begin(request_id, request_id, self.model_name, time.monotonic())
        self.requests[request_id] = Asked(request, prompt, sampling_params_list)

    def output(self, output: Any) -> None:
        """An output goes to the script; the engine has marked the request if it is its last."""
        asked = self.requests.get(getattr(output, "request_id", ""))
        if asked is not None:
            asked.output(output)

    def end_complete(self) -> None:
        for request_id in [i for i, asked in self.requests.items() if asked.request.complete]:
            self.requests.pop(request_id).end(None)

    def end_all(self, error: BaseException | None) -> None:
        self.end_complete()
        while self.requests:
            self.requests.popitem()[1].end(error)


class _Current(threading.local):
    """The batch whose requests this thread hands to the engine."""

    batch: Batch | None = None


_current = _Current()


def wrap_run_generation(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``Omni._run_generation``: yields outputs as they come, after it has submitted all prompts."""

    @functools.wraps(original)
    def _run_generation(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        batch = Batch(state.requests, introduce(self, state))
        outputs = original(self, *args, **kwargs)
        error: BaseException | None = None
        try:
            _current.batch = batch
            try:
                output = next(outputs)
            finally:
                _current.batch = None
            while True:
                batch.output(output)
                batch.end_complete()
                yield output
                del output  # it may be large
                output = next(outputs)
        except StopIteration:
            return
        except BaseException as raised:
            error = raised
            raise
        finally:
            batch.end_all(error)
            error = None  # else it and this frame keep each other alive
            outputs.close()

    return _run_generation


def wrap_add_request(original: Callable[..., Any], _: EngineState) -> Callable[..., Any]:
    """``AsyncOmniEngine.add_request``: hands one prompt of a batch to the orchestrator.

    The server comes here too, outside of any batch.
    """

    read = reading(original, "prompt", "sampling_params_list")

    @functools.wraps(original)
    def add_request(self: Any, request_id: str, *args: Any, **kwargs: Any) -> Any:
        batch = _current.batch
        if batch is not None:
            with internal_errors.suppressed("the beginning of an offline request"):
                prompt, sampling_params_list = read(self, request_id, *args, **kwargs)
                batch.begin(request_id, prompt, sampling_params_list)
        return original(self, request_id, *args, **kwargs)

    return add_request
