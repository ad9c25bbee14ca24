"""Whether an endpoint answers what the engine raised with an HTTP 4xx."""

from __future__ import annotations

from typing import Any


def is_refusal(
    error: BaseException | None, sampling_params: Any, sampling_params_list: Any
) -> bool:
    """Whether the client is told that its request is invalid, by how ``generate`` was called.

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
