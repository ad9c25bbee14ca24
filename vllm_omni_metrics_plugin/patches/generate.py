"""The client-facing engine: arrival, what leaves for the client, and the end of each request.

Every endpoint that is not a duplex session ends in ``AsyncOmni.generate``, so this is where
audio leaves for SSE, raw streams and every websocket alike.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches import http
from vllm_omni_metrics_plugin.patches.asked import Asked
from vllm_omni_metrics_plugin.patches.outputs import observe
from vllm_omni_metrics_plugin.patches.replicas import introduce
from vllm_omni_metrics_plugin.patches.seams.arguments import reading
from vllm_omni_metrics_plugin.patches.seams.inner import closing
from vllm_omni_metrics_plugin.patches.state import EngineState
from vllm_omni_metrics_plugin.patches.streamed_input import observed
from vllm_omni_metrics_plugin.patches.warmup import is_warming_up
from vllm_omni_metrics_plugin.requests import OpenRequest, OpenRequests, StreamedInput
from vllm_omni_metrics_plugin.requests.arrival import WallClock, is_time
from vllm_omni_metrics_plugin.requests.client import UNKNOWN


class Call:
    """One call of ``generate``; its request begins when the engine gives it its internal id."""

    __slots__ = (
        "answering",
        "arrived_at",
        "begun",
        "external_request_id",
        "is_warm_up",
        "modalities",
        "model_name",
        "nobodys",
        "request",
        "requests",
        "streamed",
    )

    def __init__(
        self,
        requests: OpenRequests,
        model_name: str,
        external_request_id: str,
        arrived_at: float | None,
        streamed: StreamedInput | None = None,
        modalities: tuple[str, ...] = (),
    ) -> None:
        self.requests = requests
        self.model_name = model_name
        self.external_request_id = external_request_id
        self.arrived_at = arrived_at
        #: The prompt, where it comes in pieces.
        self.streamed = streamed
        #: That it asks for.
        self.modalities = modalities
        #: Read here, as where the call ends may be another context.
        self.answering = http.answering()
        self.is_warm_up = is_warming_up()
        self.begun = False
        #: The internal id of a warm-up.
        self.nobodys: str | None = None
        self.request: OpenRequest | None = None

    def begin(self, request_id: str) -> None:
        self.begun = True
        if self.is_warm_up:
            self.nobodys = request_id
            self.requests.nobodys.add(request_id)
            return
        answering = self.answering
        self.request = self.requests.begin(
            request_id,
            self.external_request_id,
            self.model_name,
            self.arrived_at,
            self.streamed,
            self.modalities,
            UNKNOWN if answering is None else answering.client,
        )
        http.attach(self.request, self.answering)


_current_call: ContextVar[Call | None] = ContextVar("omni_metrics_call", default=None)


def wrap_generate(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``AsyncOmni.generate``: the request's life as its client sees it."""

    read = reading(
        original, "request_id", "arrival_time", "sampling_params_list", "output_modalities"
    )

    @functools.wraps(original)
    async def generate(
        self: Any, prompt: Any, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        request_id, arrived_at, params, modalities = read(self, prompt, *args, **kwargs)
        asked = Asked(prompt, params)
        prompt, streamed = observed(prompt)
        model_name = introduce(self, state)
        call = Call(
            state.requests,
            model_name,
            request_id or "",
            _arrival(arrived_at, state.wall_clock),
            streamed,
            _modalities(self, state, asked, modalities),
        )
        outputs = original(self, prompt, *args, **kwargs)
        error: BaseException | None = None
        async with closing(outputs):
            try:
                output = await _first_output(outputs, call)
                while True:
                    if call.request is not None:
                        observe(call.request, output, asked)
                    yield output
                    del output  # it may be large, and the next one may be long in coming
                    output = await outputs.__anext__()
            except StopAsyncIteration:
                return
            except BaseException as raised:
                error = raised
                raise
            finally:
                if call.request is not None:
                    _end(call.request, error, asked)
                    # The engine keeps the first call's context for good.
                    call.request = call.answering = None
                if call.nobodys is not None:
                    state.requests.nobodys.discard(call.nobodys)
                # Else it and this frame, with the last output, keep each other alive.
                error = None

    return generate


async def _first_output(outputs: AsyncGenerator[Any, None], call: Call) -> Any:
    # The engine makes the internal id on the way to its first output, in this same context.
    token = _current_call.set(call)
    try:
        return await outputs.__anext__()
    finally:
        # A task that is destroyed unfinished is closed in a context that never had the token.
        with contextlib.suppress(ValueError):
            _current_call.reset(token)


def wrap_request_id(original: Callable[..., str], _: EngineState) -> Callable[..., str]:
    """``AsyncOmni._get_unique_request_id``: the internal id of the call that is beginning."""

    @functools.wraps(original)
    def _get_unique_request_id(external_request_id: str, *args: Any, **kwargs: Any) -> str:
        request_id = original(external_request_id, *args, **kwargs)
        call = _current_call.get()
        if call is not None and not call.begun:
            with internal_errors.suppressed("the beginning of a request"):
                call.begin(request_id)
        return request_id

    return _get_unique_request_id


def wrap_result(original: Callable[..., Any], state: EngineState) -> Callable[..., Any]:
    """``OmniBase._process_single_result``: whether this is the request's last output."""

    @functools.wraps(original)
    def _process_single_result(self: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, result, *args, **kwargs)
        if getattr(result, "finished", False):
            request = state.requests.by_id.get(result.request_id)
            if request is not None:
                request.complete = True
        if output is not None and not hasattr(output, "replica_id"):
            # Up to 0.24 outputs do not say it themselves.
            with contextlib.suppress(AttributeError):
                output.replica_id = result.replica_id
        return output

    return _process_single_result


def _arrival(stamp: Any, wall_clock: WallClock) -> float | None:
    """Monotonic arrival time, from the endpoint's own time stamp where it passes one on."""
    return wall_clock.monotonic(stamp) if is_time(stamp) else time.monotonic()


def _modalities(omni: Any, state: EngineState, asked: Asked, named: Any) -> tuple[str, ...]:
    """What the request asks for, of what leaves the engine's stages for clients; never raises."""
    try:
        pools = getattr(omni.engine, "stage_pools", ())
        made = [kind for pool in pools if pool in state.stages for kind in state.stages[pool].makes]
        return asked.modalities(made, named)
    except Exception as error:
        internal_errors.report("what a request asks for", error)
        return ()


def _end(request: OpenRequest, error: BaseException | None, asked: Asked) -> None:
    with internal_errors.suppressed("the end of a request"):
        request.end(error, requested_frame_rates=asked.frame_rates())
