"""What a request was asked for, as far as its figures depend on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: What an endpoint that answers in images asks for in the prompt.
_IMAGES = frozenset({"image", "img2img"})


class Asked(NamedTuple):
    """The engine's own objects; whoever holds this holds them, so nobody keeps it past the end."""

    prompt: Any = None
    #: Of the pipeline's stages in order; None where the engine takes its defaults.
    sampling_params_list: Sequence[Any] | None = None

    def param(self, stage: int, name: str) -> Any:
        """A sampling parameter of a stage; None if nothing was said about it."""
        params = self.sampling_params_list or ()
        return getattr(params[stage], name, None) if 0 <= stage < len(params) else None

    @property
    def for_images(self) -> bool:
        """Whether the prompt asks for images alone, whatever the model makes."""
        asked = self.prompt.get("modalities") if isinstance(self.prompt, Mapping) else None
        return isinstance(asked, (list, tuple)) and bool(asked) and _IMAGES.issuperset(asked)

    def frame_rates(self) -> dict[int, float]:
        """Hz, by stage, where a stage is asked for one."""
        rates = {}
        for stage, _ in enumerate(self.sampling_params_list or ()):
            rate = self.param(stage, "resolved_frame_rate")
            if isinstance(rate, float) and rate > 0.0:
                rates[stage] = rate
        return rates
