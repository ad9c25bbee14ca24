"""What BAGEL needs on CPU, and to be tiny."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

#: Of the autoencoder, whose width the engine fixes at 128, with 84 million weights.
_WIDTH = 32


def shrink_autoencoder() -> None:
    """Has the engine make a tiny one; does nothing the second time."""
    from vllm_omni.diffusion.models.bagel import pipeline_bagel
    from vllm_omni.model_executor.models.bagel import bagel

    full = pipeline_bagel.default_ae_params
    if full is not _small_parameters:
        _small_parameters.full = full  # type: ignore[attr-defined]
        pipeline_bagel.default_ae_params = bagel.default_ae_params = _small_parameters


def _small_parameters() -> Any:
    return dataclasses.replace(_small_parameters.full(), ch=_WIDTH)  # type: ignore[attr-defined]


def cast_inputs(pipeline: torch.nn.Module) -> None:
    """Give each linear layer its input in its own type: autocast, which the engine has off here."""
    for module in pipeline.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(_cast)


def _cast(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = module.weight.dtype
    return tuple(
        value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value
        for value in arguments
    )
