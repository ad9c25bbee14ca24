"""What a request was asked for, as far as its figures depend on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    def modalities(self, made: Iterable[str], named: Any) -> tuple[str, ...]:
        """Those that the request asks for, of those that are ``made``.

        All of them, unless the call or the prompt has ``named`` some.
        """
        if self.for_images:
            return ("image",)
        all_made = tuple(dict.fromkeys(made))
        chosen = tuple(kind for kind in all_made if kind in (named or ()))
        return chosen or all_made

    def frame_rates(self) -> dict[int, float]:
        """Hz, by stage, where a stage is asked for one."""
        rates = {}
        for stage, _ in enumerate(self.sampling_params_list or ()):
            rate = self.param(stage, "resolved_frame_rate")
            if isinstance(rate, float) and rate > 0.0:
                rates[stage] = rate
        return rates
