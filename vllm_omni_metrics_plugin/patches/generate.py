"""The client-facing engine: arrival, what leaves for the client, and the end of each request.

Every endpoint that is not a duplex session ends in ``AsyncOmni.generate``, so this is where
audio leaves for SSE, raw streams and every websocket alike.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from vllm_omni_metrics_plugin import internal_errors
from vllm_omni_metrics_plugin.patches import replicas
from vllm_omni_metrics_plugin.patches.diffusion import outputs
from vllm_omni_metrics_plugin.patches.state import open_requests
from vllm_omni_metrics_plugin.requests.state import OpenRequest

#: An endpoint that says when the request reached it is believed up to this age, so that a
#: stepped wall clock cannot make up an hour of waiting.
_OLDEST_ARRIVAL_SECONDS = 60.0


class Call:
    """One call of ``generate``; its request begins when the engine gives it its internal id."""

    __slots__ = ("arrived_at", "begun", "external_request_id", "model_name", "request")

    def __init__(self, model_name: str, external_request_id: str, arrived_at: float) -> None:
        self.model_name = model_name
        self.external_request_id = external_request_id
        self.arrived_at = arrived_at
        self.begun = False
        self.request: OpenRequest | None = None

    def begin(self, request_id: str) -> None:
        self.begun = True
        self.request = open_requests.begin(
            request_id, self.external_request_id, self.model_name, self.arrived_at
        )


_current_call: ContextVar[Call | None] = ContextVar("omni_metrics_call", default=None)


def wrap_generate(original: Callable[..., Any]) -> Callable[..., Any]:
    """``AsyncOmni.generate``: the request's life as its client sees it."""

    @functools.wraps(original)
    async def generate(
        self: Any, prompt: Any, sampling_params: Any = None, request_id: str = "", **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        call = Call(replicas.model_name(self), request_id, _arrival(kwargs.get("arrival_time")))
        outputs = original(self, prompt, sampling_params, request_id, **kwargs)
        error: BaseException | None = None
        try:
            output = await _first_output(outputs, call)
            while True:
                if call.request is not None:
                    observe(call.request, output, kwargs.get("sampling_params_list"), prompt)
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
                params = kwargs.get("sampling_params_list")
                _end(call.request, error, _is_refusal(error, sampling_params, params), params)
                call.request = None  # the engine keeps the first call's context for good
            error = None  # else it and this frame, with the last output, keep each other alive
            await outputs.aclose()

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


def wrap_request_id(original: Callable[..., str]) -> Callable[..., str]:
    """``AsyncOmni._get_unique_request_id``: the internal id of the call that is beginning."""

    @functools.wraps(original)
    def _get_unique_request_id(external_request_id: str) -> str:
        request_id = original(external_request_id)
        call = _current_call.get()
        if call is not None and not call.begun:
            with internal_errors.suppressed("the beginning of a request"):
                call.begin(request_id)
        return request_id

    return _get_unique_request_id


def wrap_result(original: Callable[..., Any]) -> Callable[..., Any]:
    """``OmniBase._process_single_result``: whether this is the request's last output."""

    @functools.wraps(original)
    def _process_single_result(self: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, result, *args, **kwargs)
        if getattr(result, "finished", False):
            request = open_requests.by_id.get(result.request_id)
            if request is not None:
                request.complete = True
        if output is not None and not hasattr(output, "replica_id"):
            # Up to 0.24 outputs do not say it themselves.
            with contextlib.suppress(AttributeError):
                output.replica_id = result.replica_id
        return output

    return _process_single_result


def _arrival(wall_clock: object) -> float:
    """Monotonic arrival time, from the endpoint's own time stamp where it passes one on."""
    now = time.monotonic()
    if not isinstance(wall_clock, (int, float)):
        return now
    age = time.time() - wall_clock
    return now - age if 0.0 <= age <= _OLDEST_ARRIVAL_SECONDS else now


def observe(
    request: OpenRequest, output: Any, sampling_params_list: Any = None, prompt: Any = None
) -> None:
    """An output leaves for the client; never raises."""
    with internal_errors.suppressed("reading an output"):
        request.delivered = True
        completions = getattr(output, "outputs", None) or ()
        finished = is_finished(output)
        if finished:
            for completion in completions:
                reason = getattr(completion, "finish_reason", None)
                if reason is not None:
                    request.finish_reasons.add(str(reason))
        output_type = getattr(output, "final_output_type", None)
        outputs.observe(request, output, sampling_params_list, prompt)
        payloads = [] if output_type in outputs.VISUAL else _audio_payloads(output, completions)
        if payloads or output_type == "audio":
            request.audio_output(payloads, output.stage_id, output.replica_id, finished=finished)


def is_finished(output: Any) -> bool:
    """Whether a stage has nothing to add to an output.

    Up to 0.22 what the client gets always says so; what the stage said is inside of it.
    """
    inner = getattr(output, "request_output", None)
    return bool(getattr(output if inner is None else inner, "finished", False))


def _audio_payloads(output: Any, completions: Any) -> list[Mapping[str, Any]]:
    payloads = [getattr(completion, "multimodal_output", None) for completion in completions]
    if not any(payloads):
        # Diffusion stages carry it on the output itself. Where a completion has one, the
        # output's property shows the same object again.
        payloads = [getattr(output, "multimodal_output", None)]
    return [
        payload
        for payload in payloads
        if isinstance(payload, Mapping) and ("audio" in payload or "model_outputs" in payload)
    ]


def _end(
    request: OpenRequest, error: BaseException | None, refused: bool, sampling_params_list: Any
) -> None:
    with internal_errors.suppressed("the end of a request"):
        rates = outputs.requested_frame_rates(sampling_params_list)
        request.end(error, refused=refused, requested_frame_rates=rates)


def _is_refusal(
    error: BaseException | None, sampling_params: Any, sampling_params_list: Any
) -> bool:
    """Whether the endpoint answers this with an HTTP 4xx, told by how it called ``generate``.

    vLLM-Omni's endpoints give parameters for each stage and answer only a ValueError so. vLLM's own
    (``/v1/completions``) give one set, and have a wider rule. With neither, the engine streams.
    """
    if sampling_params_list is not None:
        invalid: tuple[type[BaseException], ...] = (ValueError,)
        kinds = sampling_params_list
    elif sampling_params is not None:
        invalid = (ValueError, TypeError, OverflowError)
        kinds = (sampling_params,)
    else:
        return False
    if any(_delivers_parts(params) for params in kinds):
        return False  # the response has begun, with status 200, before the engine is even called
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return 400 <= status < 500
    if isinstance(error, invalid):
        return True
    names = {cls.__name__ for cls in type(error).__mro__}
    return sampling_params_list is None and "VLLMClientError" in names


def _delivers_parts(params: Any) -> bool:
    kind = getattr(params, "output_kind", None)
    return getattr(kind, "name", "") in ("DELTA", "CUMULATIVE")
