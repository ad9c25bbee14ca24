"""What a figure of the bench is, and what stands beside it on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_omni_metrics_plugin import catalog

#: How both sides make one number of many requests; ``share``: of those at or below a bound.
Aggregate = Literal["total", "count", "sum", "mean", "quantile", "share"]

#: How far apart both sides may be. ``exact``: not at all. ``time``: the tolerance, and the client's
#: way on top. ``ratio``: the tolerance. ``no``: they are shown beside each other, no more.
Judged = Literal["exact", "time", "ratio", "no"]

SPEECH = ("openai-audio-speech",)
CHAT = ("openai-chat-omni", "daily-omni")
IMAGES = ("/v1/images/generations", "/v1/images/edits", "openai-image-edits-omni")
VIDEOS = ("/v1/videos",)
#: Sessions outside ``generate``, which the plugin does not observe.
DUPLEX = ("openai-realtime-duplex", "openai-realtime-tts")

#: Why a time of the bench is longer than ours.
CLIENTS_WAY = (
    "The client's way: its connection (the first request opens one), HTTP and the parsing of the "
    "request in front; encoding, HTTP and the client's own delay behind."
)

#: Factor from the bench's milliseconds to our seconds.
TO_SECONDS = 0.001


@dataclass(frozen=True)
class Figure:
    """One number of the bench and the one of ours beside it.

    ``bench`` is the key in the result file; for a quantile it is what follows ``median_``,
    ``p99_`` or ``percentiles_`` there. ``family`` is the stem whose samples make the server's
    number, over all label sets.
    """

    name: str
    aggregate: Aggregate
    bench: str
    family: str
    judged: Judged
    bench_meaning: str
    server_meaning: str
    #: What stands between both sides, or why they cannot be compared.
    why: str = ""
    #: Factor from the bench's unit to ours.
    to_unit: float = 1.0
    #: With which ``--backend`` the key has this meaning; empty for all.
    backends: tuple[str, ...] = ()
    #: The bench's number is ``bench`` times and over these keys' values.
    bench_times: str | None = None
    bench_over: str | None = None
    #: The server's number is the family's sum over the sum or value of this one.
    over: str | None = None
    #: Only successes (stop, length) of a family by finished_reason, or only the others.
    successes: bool | None = None
    #: Of a share, the bound; it has to be one of the family's buckets.
    at_most: float | None = None
    #: The bench's 0 is a number as any other; of means it is its word for no sample otherwise.
    zero_is_measured: bool = False

    @property
    def bench_formula(self) -> str:
        """The bench's number in its own words."""
        if self.aggregate == "quantile":
            return f"p<n>_{self.bench}"
        times = f" * {self.bench_times}" if self.bench_times else ""
        over = f" / {self.bench_over}" if self.bench_over else ""
        return self.bench + times + over

    @property
    def is_another(self) -> bool:
        """Whether the server's number is on another basis, and so has another name."""
        return self.judged == "no" and self.name.partition("{")[0] != self.family

    @property
    def server_formula(self) -> str:
        """The server's number from its samples, without the ``vllm:omni_`` that all begin with."""
        total = self.family if self.counts(self.family) else f"{self.family}_sum"
        if self.successes is not None:
            total += f'{{finished_reason{"=" if self.successes else "!"}~"stop|length"}}'
        if self.over is not None:
            return f"{total} / {self.over if self.counts(self.over) else f'{self.over}_sum'}"
        if self.aggregate == "mean":
            return f"{self.family}_sum / {self.family}_count"
        if self.aggregate == "count":
            return f"{self.family}_count"
        if self.aggregate == "quantile":
            return f"quantile of {self.family}_bucket"
        if self.aggregate == "share":
            return f'{self.family}_bucket{{le="{self.at_most}"}} / {self.family}_count'
        return total

    @property
    def is_counter(self) -> bool:
        return self.counts(self.family)

    @staticmethod
    def counts(stem: str) -> bool:
        """Whether the family is a counter, with nothing but its value to show."""
        return catalog.BY_STEM[stem].kind == "counter"
