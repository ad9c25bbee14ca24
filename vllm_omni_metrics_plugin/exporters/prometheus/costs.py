"""What the work of a stage takes, learned from the requests that it finished.

Costs are ratios of sums over the same requests, in which older ones count less: what all of them
took over what all of them were. So the sum over a queue of the same mix is right. The mean of the
requests' own ratios would not be: what each takes once, however small it is, would count for every
unit of the large ones.
"""

from __future__ import annotations

from vllm_omni_metrics_plugin.hooks import Demand

#: After so many requests of a stage one counts half.
HALF_LIFE = 50
_FADES = 0.5 ** (1 / HALF_LIFE)
#: Less than this between two sums of squares is rounding: the requests had all the same steps.
_ALIKE = 1e-6


class _Mean:
    """Seconds of a request."""

    __slots__ = ("_requests", "_seconds")

    def __init__(self) -> None:
        self._requests = self._seconds = 0.0

    def add(self, seconds: float) -> None:
        self._requests = self._requests * _FADES + 1.0
        self._seconds = self._seconds * _FADES + seconds

    def value(self) -> float | None:
        return self._seconds / self._requests if self._requests else None


class DiffusionCost:
    """Of a stage whose requests say what they ask for: so many pixels, and steps for each.

    A pixel takes a time for each step, and one for all that is done once, as to decode it. How the
    two relate is the least squares' word; that all together is what was measured comes first.
    """

    def __init__(self) -> None:
        self._mean = _Mean()
        #: Over the requests that say what they ask for: seconds, pixels, pixels x steps ...
        self._seconds = self._pixels = self._work = 0.0
        #: ... and the products that least squares need.
        self._pixels_pixels = self._pixels_work = self._work_work = 0.0
        self._seconds_pixels = self._seconds_work = 0.0

    def learn(self, seconds: float, demand: Demand, tokens: int | None, *, cut: bool) -> None:
        """A request took ``seconds`` of its replica; diffusion has no ``tokens`` and no ``cut``."""
        self._mean.add(seconds)
        if demand.pixels is None or demand.steps is None:
            return
        pixels, work = float(demand.pixels), float(demand.pixels * demand.steps)
        self._seconds = self._seconds * _FADES + seconds
        self._pixels = self._pixels * _FADES + pixels
        self._work = self._work * _FADES + work
        self._pixels_pixels = self._pixels_pixels * _FADES + pixels * pixels
        self._pixels_work = self._pixels_work * _FADES + pixels * work
        self._work_work = self._work_work * _FADES + work * work
        self._seconds_pixels = self._seconds_pixels * _FADES + seconds * pixels
        self._seconds_work = self._seconds_work * _FADES + seconds * work

    def expect(self, demand: Demand) -> float | None:
        """Seconds that a request takes; None before the first finish."""
        if demand.pixels is None or demand.steps is None or not self._work:
            return self._mean.value()
        once, each = self._ratio()
        asked = once * demand.pixels + each * demand.pixels * demand.steps
        return asked * self._seconds / (once * self._pixels + each * self._work)

    def _ratio(self) -> tuple[float, float]:
        """Of what a pixel takes once to what it takes for each step."""
        squares = self._pixels_pixels * self._work_work
        apart = squares - self._pixels_work**2
        if apart <= _ALIKE * squares:
            return 0.0, 1.0
        once = self._seconds_pixels * self._work_work - self._seconds_work * self._pixels_work
        each = self._seconds_work * self._pixels_pixels - self._seconds_pixels * self._pixels_work
        if once <= 0.0:
            return 0.0, 1.0
        return (once, each) if each > 0.0 else (1.0, 0.0)


class TokenCost:
    """Of a stage that makes tokens: nobody knows how many before, but there is a limit."""

    def __init__(self) -> None:
        self._mean = _Mean()
        self._seconds = self._tokens = self._requests = 0.0
        #: Requests that ended by themselves. A length that the limit cut only says that it would
        #: have been more.
        self._natural = 0.0

    def learn(self, seconds: float, demand: Demand, tokens: int | None, *, cut: bool) -> None:
        """A request took ``seconds`` of its replica for ``tokens``; its limit ``cut`` it short."""
        self._mean.add(seconds)
        if tokens:
            self._seconds = self._seconds * _FADES + seconds
            self._tokens = self._tokens * _FADES + tokens
            self._requests = self._requests * _FADES + 1.0
            self._natural = self._natural * _FADES + (not cut)

    def expect(self, demand: Demand) -> float | None:
        """Seconds that a request takes; None before the first finish."""
        if not self._tokens:  # the stage counts none
            return self._mean.value()
        if self._natural:
            length = self._tokens / self._natural
        else:
            length = self._tokens / self._requests if demand.tokens is None else demand.tokens
        if demand.tokens is not None:
            length = min(length, demand.tokens)
        return length * self._seconds / self._tokens


#: Of a stage of either kind.
Cost = DiffusionCost | TokenCost


def cost_of(stage_type: str) -> Cost:
    """For a stage of the type that its replicas say."""
    return DiffusionCost() if stage_type == "diffusion" else TokenCost()
