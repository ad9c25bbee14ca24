"""Delays of places that no stage is to blame for, as a test asks for them.

``VLLM_OMNI_CPU_DELAYS`` names a file with a place and its seconds on each line: ``frontend`` is
what the server does before a stage has the request, ``transfer`` the handing over of each payload.
Without the variable nothing is touched; without the file, or the place in it, nothing waits.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from typing import Any

_DONE = "_vllm_omni_cpu_delayed"


def seconds_of(place: str) -> float:
    """How long it is to take longer by now."""
    try:
        with open(os.environ["VLLM_OMNI_CPU_DELAYS"]) as file:
            asked = dict(line.split() for line in file)
    except (KeyError, FileNotFoundError):
        return 0.0
    return float(asked.get(place, 0.0))


def delay_transfers() -> None:
    """In a process that sends payloads to others."""
    from vllm_omni.distributed.omni_connectors.connectors.base import OmniConnectorBase

    if "VLLM_OMNI_CPU_DELAYS" not in os.environ or hasattr(OmniConnectorBase, _DONE):
        return
    original = OmniConnectorBase.serialize_obj

    def serialize_obj(obj: Any) -> bytes:
        time.sleep(seconds_of("transfer"))
        return original(obj)

    OmniConnectorBase.serialize_obj = staticmethod(serialize_obj)
    setattr(OmniConnectorBase, _DONE, True)


def delay_front_end() -> None:
    """In the server's process, when it builds its engine."""
    module = sys.modules.get("vllm_omni.engine.async_omni_engine")
    if "VLLM_OMNI_CPU_DELAYS" not in os.environ or module is None:
        return
    engine = module.AsyncOmniEngine
    if hasattr(engine, _DONE):
        return
    original = engine.add_request_async

    @functools.wraps(original)
    async def add_request_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(seconds_of("frontend"))
        return await original(self, *args, **kwargs)

    engine.add_request_async = add_request_async
    setattr(engine, _DONE, True)
